"""Parts of people and of the two-wheelers they ride; frame and arguments as in `catalogue.Kind.shape`."""

import numpy as np

from dualdistill.synthetic.mesh import CLOTH, GLASS, METAL, PLASTIC, REFLECTOR, Mesh, Rgb, Vector, blob, box, wheel
from dualdistill.synthetic.palette import CLOTHES, DARK, LAMP, PAINTS, SAFETY, SKINS, TAIL, WHITE, WINDOW, pick


def _person(rng: np.random.Generator, height: float, stride: float, vest: Rgb | None = None) -> list[Mesh]:
    """Legs, trunk, arms and head, standing on z = 0; `stride` is how far the feet are apart, metres."""
    trousers, skin = pick(rng, CLOTHES), pick(rng, SKINS)
    shirt = vest or pick(rng, CLOTHES)
    hair = pick(rng, ((0.03, 0.02, 0.02), (0.2, 0.12, 0.05), (0.4, 0.35, 0.3)))
    hip, shoulder = 0.47 * height, 0.82 * height
    parts = []
    for side in (-1, 1):
        foot, hand, leg, arm = side * stride / 2, -side * stride / 3, side * 0.1, side * 0.25
        parts += [
            box((foot - 0.1, foot + 0.1), (leg - 0.07, leg + 0.07), (0, hip), trousers, CLOTH, lean=-foot),
            box(
                (hand - 0.06, hand + 0.06),
                (arm - 0.05, arm + 0.05),
                (0.42 * height, shoulder),
                shirt,
                CLOTH,
                lean=-hand,
            ),
        ]
    return [
        *parts,
        box(0.12, 0.2, (hip, shoulder + 0.03), shirt, CLOTH, taper=(0.9, 1.1)),
        box(0.06, 0.06, (shoulder, 0.88 * height), skin, CLOTH),
        blob((0.02, 0.0, 0.93 * height), (0.11, 0.09, 0.07 * height), skin, CLOTH),
        box((-0.1, 0.06), 0.085, (0.95 * height, height), hair, CLOTH, taper=(0.7, 0.7)),
    ]


def pedestrian(rng: np.random.Generator, size: Vector, moves: bool) -> list[Mesh]:
    """Somebody who walks or stands, perhaps with a bag."""
    length, _, height = size
    parts = _person(rng, height, length * 0.85 if moves else 0.1)
    if rng.random() < 0.35:
        parts.append(box((-0.3, -0.1), 0.16, (0.5 * height, 0.8 * height), pick(rng, CLOTHES), CLOTH))
    return parts


def worker(rng: np.random.Generator, size: Vector, moves: bool) -> list[Mesh]:
    """Somebody in a safety vest and helmet."""
    length, _, height = size
    vest = pick(rng, SAFETY)
    return [
        *_person(rng, height, length * 0.85 if moves else 0.15, vest),
        box(0.125, 0.21, (0.6 * height, 0.64 * height), WHITE, REFLECTOR),
        blob((0.0, 0.0, 0.97 * height), (0.14, 0.13, 0.04 * height), vest, PLASTIC),
    ]


def _bar(start: tuple[float, float], stop: tuple[float, float], thick: float, color: Rgb) -> Mesh:
    """A slanted bar in the plane y = 0 between two places (x, z), from below to above."""
    (x0, z0), (x1, z1) = start, stop
    return box((x0 - thick, x0 + thick), thick, (z0, z1), color, METAL, lean=x1 - x0)


def _rider(rng: np.random.Generator, seat: float, height: float, reach: float) -> list[Mesh]:
    """Somebody on a saddle of height `seat`, hands on the bars `reach` ahead."""
    shirt, trousers, skin = pick(rng, CLOTHES), pick(rng, CLOTHES), pick(rng, SKINS)
    neck, hands = height - 0.28, (reach - 0.05, reach + 0.05)
    parts = [
        box((-0.3, -0.02), 0.19, (seat, neck), shirt, CLOTH, taper=(0.85, 1.1), lean=0.18),
        blob((0.1, 0.0, height - 0.13), (0.14, 0.12, 0.13), pick(rng, (DARK, WHITE, *PAINTS)), PLASTIC),
        box((0.04, 0.14), 0.06, (neck - 0.03, height - 0.18), skin, CLOTH),
    ]
    for y, arm in ((-0.14, -0.24), (0.14, 0.24)):
        parts += [
            box((-0.15, 0.28), (y - 0.08, y + 0.08), (seat - 0.08, seat + 0.08), trousers, CLOTH),
            box((0.08, 0.22), (y - 0.07, y + 0.07), (0.28, seat), trousers, CLOTH, lean=0.08),
            box(hands, (arm - 0.05, arm + 0.05), (seat + 0.12, neck - 0.08), shirt, CLOTH, lean=0.05 - reach),
        ]
    return parts


def bicycle(rng: np.random.Generator, size: Vector, moves: bool) -> list[Mesh]:
    """Two thin wheels, a frame, bars; a rider where it moves."""
    length, width, height = size
    radius, paint = 0.19 * length, pick(rng, PAINTS)
    back, front = -length / 2 + radius, length / 2 - radius
    bike = 1.05 if moves else height
    parts = [
        *(wheel(x, 0.0, radius, 0.05) for x in (back, front)),
        _bar((back, radius), (-0.12, 0.8 * bike), 0.03, paint),
        _bar((0.0, 0.28), (0.25 * length, 0.78 * bike), 0.03, paint),
        _bar((front, radius), (0.25 * length, 0.95 * bike), 0.03, paint),
        box((-0.15, 0.25 * length), 0.03, (0.72 * bike, 0.78 * bike), paint, METAL),
        box((-0.25, 0.02), 0.08, (0.82 * bike, 0.88 * bike), DARK, PLASTIC),
        box((0.22 * length, 0.27 * length), width / 2, (0.95 * bike, bike), DARK, METAL),
    ]
    return parts + (_rider(rng, 0.9, height, 0.25 * length) if moves else [])


def motorcycle(rng: np.random.Generator, size: Vector, moves: bool) -> list[Mesh]:
    """Fat wheels, tank and seat, fork and bars; a rider where it moves."""
    length, width, height = size
    radius, paint = 0.155 * length, pick(rng, PAINTS)
    bike = 1.12 if moves else 0.9 * height
    parts = [
        *(wheel(side * (length / 2 - radius), 0.0, radius, 0.16) for side in (-1, 1)),
        box((-0.18 * length, 0.16 * length), 0.2, (0.25, 0.6 * bike), DARK, METAL, taper=(1.0, 0.8)),
        box((-0.02 * length, 0.2 * length), 0.17, (0.58 * bike, 0.85 * bike), paint, taper=(0.8, 0.7)),
        box((-0.42 * length, 0.0), 0.16, (0.55 * bike, 0.72 * bike), paint, taper=(0.9, 0.8)),
        box((-0.35 * length, 0.0), 0.15, (0.7 * bike, 0.78 * bike), DARK, PLASTIC),
        _bar((length / 2 - radius, radius), (0.22 * length, 0.98 * bike), 0.07, DARK),
        box((0.18 * length, 0.22 * length), width / 2, (0.94 * bike, bike), DARK, METAL),
        box((0.26 * length, 0.3 * length), 0.12, (0.75 * bike, 0.92 * bike), LAMP, PLASTIC),
        box((-0.44 * length, -0.42 * length), 0.1, (0.6 * bike, 0.7 * bike), TAIL, REFLECTOR),
    ]
    if moves:
        return parts + _rider(rng, 0.78 * bike, height, 0.18 * length)
    return [*parts, box((0.2 * length, 0.24 * length), 0.15, (bike, height), WINDOW, GLASS)]
