"""Meshes of the things that are annotated, in their box frame: x forward, y left, z up, ground at z = 0.

Proportions only: every shape is stretched to the exact size of its box afterwards (`Mesh.fitted`).
"""

from collections.abc import Callable

import numpy as np

from dualdistill.data.synthetic.mesh import Material, Mesh, Rgb, Vector, blob, box, cylinder, wheel

PAINTS: tuple[Rgb, ...] = (
    (0.72, 0.72, 0.72),
    (0.42, 0.43, 0.45),
    (0.06, 0.06, 0.07),
    (0.18, 0.19, 0.21),
    (0.55, 0.04, 0.04),
    (0.05, 0.12, 0.42),
    (0.16, 0.3, 0.5),
    (0.08, 0.2, 0.12),
    (0.5, 0.42, 0.3),
    (0.75, 0.55, 0.08),
)
"""Vehicle colours."""
CLOTHES: tuple[Rgb, ...] = (
    (0.05, 0.05, 0.07),
    (0.08, 0.1, 0.25),
    (0.5, 0.5, 0.48),
    (0.4, 0.05, 0.06),
    (0.1, 0.3, 0.15),
    (0.6, 0.45, 0.1),
    (0.2, 0.14, 0.1),
    (0.15, 0.3, 0.5),
)
SKINS: tuple[Rgb, ...] = ((0.55, 0.36, 0.26), (0.35, 0.2, 0.13), (0.14, 0.08, 0.05))
SAFETY: tuple[Rgb, ...] = ((0.85, 0.25, 0.03), (0.6, 0.75, 0.05))
"""Orange and yellow of road works."""

DARK: Rgb = (0.03, 0.03, 0.035)
WINDOW: Rgb = (0.04, 0.055, 0.07)
WHITE: Rgb = (0.8, 0.8, 0.8)
LAMP: Rgb = (0.9, 0.9, 0.8)
TAIL: Rgb = (0.6, 0.02, 0.02)
ORANGE: Rgb = (0.85, 0.22, 0.02)

Shape = Callable[[np.random.Generator, Vector, bool], Mesh]
"""Draws one look for an object of (length, width, height), which moves (or is ridden) or does not."""


def pick(rng: np.random.Generator, colors: tuple[Rgb, ...]) -> Rgb:
    """One of the colours, slightly varied."""
    red, green, blue = np.clip(np.asarray(colors[rng.integers(len(colors))]) * rng.uniform(0.8, 1.2, 3), 0, 1)
    return float(red), float(green), float(blue)


def _lights(length: float, width: float, low: float, high: float) -> list[Mesh]:
    """Head lamps in front, red ones behind, a plate that mirrors the LiDAR."""
    front, back, w = length / 2, -length / 2, width / 2
    parts = [box((back - 0.02, -0.26, low), (back, 0.26, low + 0.11), WHITE, Material.REFLECTOR)]
    for side in (-1, 1):
        inner, outer = sorted((side * w * 0.62, side * w * 0.96))
        parts.append(box((front, inner, low), (front + 0.02, outer, high), LAMP, Material.PLASTIC))
        parts.append(box((back - 0.02, inner, low), (back, outer, high), TAIL, Material.REFLECTOR))
    return parts


def _axle(x: float, width: float, radius: float, tyre: float = 0.22) -> list[Mesh]:
    return [wheel((x, side * (width / 2 - tyre / 2), radius), radius, tyre) for side in (-1, 1)]


def car(rng: np.random.Generator, size: Vector, moves: bool) -> Mesh:
    """A saloon, hatchback, van or off-roader: body, glass house, roof, wheels, lamps."""
    length, width, height = size
    paint = pick(rng, PAINTS)
    rear, front, belt, roof = (
        (-0.36, 0.2, 0.56, (0.6, 0.82)),
        (-0.48, 0.2, 0.55, (0.75, 0.84)),
        (-0.48, 0.36, 0.5, (0.84, 0.86)),
        (-0.49, 0.22, 0.6, (0.86, 0.88)),
    )[rng.integers(4)]
    radius, low = 0.19 * height, 0.16 * height
    x0, x1, w = rear * length, front * length, width / 2
    middle = (x0 + x1) / 2
    half = (x1 - x0) / 2 * roof[0]
    parts = [
        box((-length / 2, -w, low), (length / 2, w, belt * height), paint, taper=(0.97, 0.94)),
        box(
            (x0, -w * 0.92, belt * height),
            (x1, w * 0.92, 0.94 * height),
            WINDOW,
            Material.GLASS,
            taper=roof,
            lean=-0.08,
        ),
        box(
            (middle - half - 0.1, -w * 0.92 * roof[1], 0.93 * height),
            (middle + half - 0.06, w * 0.92 * roof[1], height),
            paint,
            taper=(0.94, 0.92),
        ),
        box(
            (middle - 0.06, -w * 0.93, belt * height),
            (middle + 0.06, w * 0.93, 0.94 * height),
            paint,
            taper=(1, 0.85),
        ),
        *_axle(0.31 * length, width, radius),
        *_axle(-0.31 * length, width, radius),
        *_lights(length, width * 0.97, 0.36 * height, 0.45 * height),
    ]
    return Mesh.join(parts)


def truck(rng: np.random.Generator, size: Vector, moves: bool) -> Mesh:
    """A lorry with a box body, or a pick-up when it is short."""
    length, width, height = size
    w, paint = width / 2, pick(rng, PAINTS)
    if length < 6.2:
        parts = [
            box((-length / 2, -w, 0.2 * height), (length / 2, w, 0.58 * height), paint, taper=(0.98, 0.95)),
            box(
                (-0.08 * length, -w * 0.9, 0.58 * height),
                (0.25 * length, w * 0.9, height),
                WINDOW,
                Material.GLASS,
                (0.7, 0.85),
            ),
            box((-0.03 * length, -w * 0.78, 0.93 * height), (0.19 * length, w * 0.78, 1.01 * height), paint),
            box((-0.48 * length, -w * 0.85, 0.575 * height), (-0.1 * length, w * 0.85, 0.59 * height), DARK),
        ]
        radius = 0.2 * height
        axles = (0.33, -0.3)
    else:
        cab = 0.5 * length - rng.uniform(1.7, 2.3)
        cargo = pick(rng, (WHITE, WHITE, (0.5, 0.5, 0.52), *PAINTS))
        roof = rng.uniform(0.75, 0.98)
        flat = rng.random() < 0.25
        parts = [
            box((-length / 2, -w * 0.8, 0.16 * height), (cab, w * 0.8, 0.27 * height), DARK, Material.METAL),
            box((cab + 0.1, -w, 0.14 * height), (length / 2, w, 0.5 * height), paint, taper=(0.98, 0.98)),
            box(
                (cab + 0.1, -w * 0.98, 0.5 * height),
                (length / 2, w * 0.98, roof * 0.93 * height),
                WINDOW,
                Material.GLASS,
                (0.9, 0.96),
            ),
            box(
                (cab + 0.1, -w * 0.95, roof * 0.9 * height),
                (length / 2 - 0.15, w * 0.95, roof * height),
                paint,
            ),
            box(
                (-length / 2, -w, 0.25 * height),
                (cab, w, (0.45 if flat else 1.0) * height),
                cargo,
                Material.METAL,
            ),
        ]
        if flat:
            load = cab - rng.uniform(0.5, 2.0)
            parts.append(
                box(
                    (-0.45 * length, -w * 0.8, 0.45 * height),
                    (load, w * 0.85, height),
                    pick(rng, PAINTS),
                    Material.WOOD,
                )
            )
        radius = min(0.5, 0.17 * height)
        axles = (0.5 - 1.1 / length, -0.36, -0.22) if length > 8 else (0.5 - 1.0 / length, -0.32)
    for x in axles:
        parts += _axle(x * length, width, radius, 0.28)
    return Mesh.join(parts + _lights(length, width * 0.96, 0.3 * height, 0.36 * height))


def bus(rng: np.random.Generator, size: Vector, moves: bool) -> Mesh:
    """A long body with a band of windows, doors and a coloured stripe."""
    length, width, height = size
    w, paint = width / 2, pick(rng, (*PAINTS, WHITE, (0.65, 0.3, 0.02)))
    stripe = pick(rng, PAINTS)
    parts = [
        box((-length / 2, -w, 0.1 * height), (length / 2, w, 0.4 * height), paint),
        box((-length / 2, -w * 1.005, 0.3 * height), (length / 2, w * 1.005, 0.38 * height), stripe),
        box(
            (-length / 2, -w * 0.985, 0.4 * height),
            (length / 2, w * 0.985, 0.76 * height),
            WINDOW,
            Material.GLASS,
        ),
        box((-length / 2, -w, 0.75 * height), (length / 2, w, height), paint, taper=(0.98, 0.93)),
        box(
            (length / 2, -w * 0.6, 0.8 * height),
            (length / 2 + 0.03, w * 0.6, 0.9 * height),
            DARK,
            Material.GLASS,
        ),
    ]
    for x in np.linspace(-0.48, 0.48, max(4, round(length / 1.8))):
        parts.append(box((x * length - 0.06, -w, 0.4 * height), (x * length + 0.06, w, 0.76 * height), paint))
    for x in (0.31, -0.28):
        parts += _axle(x * length, width * 1.005, 0.15 * height, 0.3)
    return Mesh.join(parts + _lights(length, width, 0.2 * height, 0.27 * height))


def trailer(rng: np.random.Generator, size: Vector, moves: bool) -> Mesh:
    """A semi-trailer, a container on a chassis or a flat bed: wheels at the back, no cab."""
    length, width, height = size
    w, paint = width / 2, pick(rng, (WHITE, *PAINTS, (0.45, 0.16, 0.08)))
    deck = 0.3 * height
    parts = [box((-length / 2, -w * 0.7, 0.22 * height), (length / 2, w * 0.7, deck), DARK, Material.METAL)]
    if rng.random() < 0.75:
        parts.append(box((-length / 2, -w, deck), (length / 2, w, height), paint, Material.METAL))
        for x in np.linspace(-0.47, 0.47, 8):
            parts.append(
                box(
                    (x * length - 0.04, -w * 1.01, deck),
                    (x * length + 0.04, w * 1.01, 0.99 * height),
                    paint,
                    Material.METAL,
                )
            )
    else:
        parts.append(
            box((-length / 2, -w, deck), (length / 2, w, 0.36 * height), (0.2, 0.13, 0.08), Material.WOOD)
        )
        parts.append(box((0.48 * length, -w, deck), (0.5 * length, w, height), paint, Material.METAL))
        for start, stop in ((-0.42, -0.1), (-0.02, 0.3)):
            top = rng.uniform(0.6, 0.95) * height
            parts.append(
                box(
                    (start * length, -w * 0.8, 0.36 * height),
                    (stop * length, w * 0.8, top),
                    pick(rng, PAINTS),
                    Material.WOOD,
                )
            )
    for x in (-0.42, -0.32, -0.22):
        parts += _axle(x * length, width, 0.14 * height, 0.3)
    for side in (-1, 1):
        parts.append(
            box(
                (0.28 * length, side * w * 0.5 - 0.06, 0),
                (0.28 * length + 0.12, side * w * 0.5 + 0.06, deck),
                DARK,
            )
        )
    return Mesh.join(
        [
            *parts,
            box(
                (-length / 2 - 0.02, -w * 0.9, deck),
                (-length / 2, w * 0.9, deck + 0.12),
                TAIL,
                Material.REFLECTOR,
            ),
        ]
    )


def construction_vehicle(rng: np.random.Generator, size: Vector, moves: bool) -> Mesh:
    """An excavator on tracks or a wheel loader, with its arm or bucket in front."""
    length, width, height = size
    w = width / 2
    paint = pick(rng, ((0.75, 0.45, 0.02), (0.8, 0.3, 0.02), (0.7, 0.6, 0.1)))
    if rng.random() < 0.5:
        parts = [
            box(
                (-0.5 * length, side * w * 0.7 - 0.3 * w, 0),
                (0.1 * length, side * w * 0.7 + 0.3 * w, 0.26 * height),
                DARK,
                Material.RUBBER,
            )
            for side in (-1, 1)
        ]
        parts += [
            box((-0.5 * length, -w * 0.9, 0.3 * height), (0.06 * length, w * 0.9, 0.58 * height), paint),
            box(
                (-0.14 * length, 0.1 * w, 0.55 * height),
                (0.08 * length, 0.9 * w, 0.92 * height),
                WINDOW,
                Material.GLASS,
                (0.85, 0.95),
            ),
            box((-0.14 * length, 0.12 * w, 0.9 * height), (0.06 * length, 0.88 * w, 0.96 * height), paint),
        ]
        elbow, tip = np.array([0.3 * length, 0.97 * height]), np.array([0.46 * length, 0.2 * height])
        joints = [np.array([0.05 * length, 0.45 * height]), elbow, tip]
        for start, stop in zip(joints[:-1], joints[1:], strict=True):
            for share in np.linspace(0.0, 1.0, 6):
                x, z = start + share * (stop - start)
                parts.append(box((x - 0.28, -0.35 * w, z - 0.22), (x + 0.28, -0.02 * w, z + 0.22), paint))
        parts.append(
            box(
                (0.36 * length, -0.5 * w, 0.02 * height),
                (0.5 * length, 0.15 * w, 0.22 * height),
                DARK,
                Material.METAL,
            )
        )
    else:
        parts = [
            box((-0.5 * length, -0.75 * w, 0.28 * height), (-0.05 * length, 0.75 * w, 0.56 * height), paint),
            box(
                (-0.2 * length, -0.6 * w, 0.5 * height),
                (0.1 * length, 0.6 * w, 0.94 * height),
                WINDOW,
                Material.GLASS,
                (0.85, 0.9),
            ),
            box((-0.2 * length, -0.58 * w, 0.92 * height), (0.09 * length, 0.58 * w, height), paint),
            box((0.0, -0.5 * w, 0.25 * height), (0.36 * length, 0.5 * w, 0.38 * height), paint),
            box(
                (0.34 * length, -w, 0.04 * height),
                (0.5 * length, w, 0.32 * height),
                DARK,
                Material.METAL,
                (0.6, 1.0),
            ),
        ]
        for x in (0.2, -0.32):
            parts += _axle(x * length, width * 0.92, 0.22 * height, 0.4)
    return Mesh.join(parts)


def barrier(rng: np.random.Generator, size: Vector, moves: bool) -> Mesh:
    """A water-filled, concrete or metal barrier; its long side is its width."""
    length, width, height = size
    w, kind = width / 2, rng.integers(3)
    if kind == 0:
        first, second = pick(rng, (ORANGE,)), pick(rng, (WHITE, ORANGE))
        edges = np.linspace(-w, w, 4)
        return Mesh.join(
            box((-length / 2, a, 0), (length / 2, b, height), color, Material.PLASTIC, taper=(0.45, 1.0))
            for a, b, color in zip(edges[:-1], edges[1:], (first, second, first), strict=True)
        )
    if kind == 1:
        stone = pick(rng, ((0.42, 0.41, 0.38), (0.5, 0.48, 0.42)))
        return Mesh.join(
            [
                box(
                    (-length / 2, -w, 0),
                    (length / 2, w, 0.35 * height),
                    stone,
                    Material.MASONRY,
                    taper=(0.55, 1.0),
                ),
                box(
                    (-0.28 * length, -w, 0.35 * height),
                    (0.28 * length, w, height),
                    stone,
                    Material.MASONRY,
                    taper=(0.6, 1.0),
                ),
                box(
                    (-0.3 * length, -0.2, 0.6 * height),
                    (0.3 * length, 0.2, 0.75 * height),
                    ORANGE,
                    Material.REFLECTOR,
                ),
            ]
        )
    steel = pick(rng, ((0.5, 0.5, 0.5), ORANGE))
    bars = [
        box((-0.04, -w, z * height), (0.04, w, (z + 0.1) * height), steel, Material.METAL)
        for z in (0.15, 0.5, 0.9)
    ]
    posts = [
        box((-0.04, y - 0.04, 0), (0.04, y + 0.04, height), steel, Material.METAL)
        for y in np.linspace(-w, w, 8)
    ]
    feet = [
        box((-length / 2, y - 0.06, 0), (length / 2, y + 0.06, 0.06), steel, Material.METAL)
        for y in (-0.8 * w, 0.8 * w)
    ]
    return Mesh.join([*bars, *posts, *feet])


def _person(rng: np.random.Generator, height: float, stride: float, vest: Rgb | None = None) -> list[Mesh]:
    """Legs, trunk, arms and head, standing on z = 0; `stride` is how far the feet are apart, metres."""
    trousers, skin = pick(rng, CLOTHES), pick(rng, SKINS)
    shirt = vest or pick(rng, CLOTHES)
    hair = pick(rng, ((0.03, 0.02, 0.02), (0.2, 0.12, 0.05), (0.4, 0.35, 0.3)))
    hip, shoulder = 0.47 * height, 0.82 * height
    parts = []
    for side in (-1, 1):
        foot, hand = side * stride / 2, -side * stride / 3
        parts += [
            box(
                (foot - 0.1, side * 0.1 - 0.07, 0),
                (foot + 0.1, side * 0.1 + 0.07, hip),
                trousers,
                Material.CLOTH,
                lean=-foot,
            ),
            box(
                (hand - 0.06, side * 0.25 - 0.05, 0.42 * height),
                (hand + 0.06, side * 0.25 + 0.05, shoulder),
                shirt,
                Material.CLOTH,
                lean=-hand,
            ),
        ]
    return [
        *parts,
        box((-0.12, -0.2, hip), (0.12, 0.2, shoulder + 0.03), shirt, Material.CLOTH, taper=(0.9, 1.1)),
        box((-0.06, -0.06, shoulder), (0.06, 0.06, 0.88 * height), skin, Material.CLOTH),
        blob((0.02, 0.0, 0.93 * height), (0.11, 0.09, 0.07 * height), skin, Material.CLOTH),
        box((-0.1, -0.085, 0.95 * height), (0.06, 0.085, height), hair, Material.CLOTH, taper=(0.7, 0.7)),
    ]


def pedestrian(rng: np.random.Generator, size: Vector, moves: bool) -> Mesh:
    """Somebody who walks or stands, perhaps with a bag."""
    length, _, height = size
    parts = _person(rng, height, length * 0.85 if moves else 0.1)
    if rng.random() < 0.35:
        parts.append(
            box((-0.3, -0.16, 0.5 * height), (-0.1, 0.16, 0.8 * height), pick(rng, CLOTHES), Material.CLOTH)
        )
    return Mesh.join(parts)


def worker(rng: np.random.Generator, size: Vector, moves: bool) -> Mesh:
    """Somebody in a safety vest and helmet."""
    length, _, height = size
    vest = pick(rng, SAFETY)
    parts = _person(rng, height, length * 0.85 if moves else 0.15, vest)
    parts.append(box((-0.125, -0.21, 0.6 * height), (0.125, 0.21, 0.64 * height), WHITE, Material.REFLECTOR))
    return Mesh.join(
        [*parts, blob((0.0, 0.0, 0.97 * height), (0.14, 0.13, 0.04 * height), vest, Material.PLASTIC)]
    )


def traffic_cone(rng: np.random.Generator, size: Vector, moves: bool) -> Mesh:
    """A cone with a bright collar on a square foot, or a delineator post."""
    length, _, height = size
    foot = box(
        (-length / 2, -length / 2, 0),
        (length / 2, length / 2, 0.06 * height),
        pick(rng, (ORANGE, DARK)),
        Material.RUBBER,
    )
    orange = pick(rng, (ORANGE,))
    wide = length * 0.38
    if rng.random() < 0.2:
        wide, slope = length * 0.2, 1.0
    else:
        slope = 0.12
    parts, bands = [foot], ((0.05, 0.45, orange), (0.45, 0.68, WHITE), (0.68, 1.0, orange))
    for low, high, color in bands:
        lower, upper = (wide * (1 + (slope - 1) * share) for share in (low, high))
        material = Material.REFLECTOR if color is WHITE else Material.PLASTIC
        part = cylinder(lower, (high - low) * height, color, material, sides=7, top=upper / lower)
        parts.append(part.moved((0.0, 0.0, low * height)))
    return Mesh.join(parts)


def _bar(start: Vector, stop: Vector, thick: float, color: Rgb) -> Mesh:
    """A slanted bar in the plane y = 0, from below to above."""
    (x0, y, z0), (x1, _, z1) = start, stop
    return box((x0 - thick, y - thick, z0), (x0 + thick, y + thick, z1), color, Material.METAL, lean=x1 - x0)


def _rider(rng: np.random.Generator, seat: float, height: float, reach: float) -> list[Mesh]:
    """Somebody on a saddle of height `seat`, hands on the bars `reach` ahead."""
    shirt, trousers, skin = pick(rng, CLOTHES), pick(rng, CLOTHES), pick(rng, SKINS)
    neck = height - 0.28
    parts = [
        box((-0.3, -0.19, seat), (-0.02, 0.19, neck), shirt, Material.CLOTH, taper=(0.85, 1.1), lean=0.18),
        blob(
            (0.1, 0.0, height - 0.13), (0.14, 0.12, 0.13), pick(rng, (DARK, WHITE, *PAINTS)), Material.PLASTIC
        ),
        box((0.04, -0.06, neck - 0.03), (0.14, 0.06, height - 0.18), skin, Material.CLOTH),
    ]
    for side in (-1, 1):
        y = side * 0.14
        parts += [
            box((-0.15, y - 0.08, seat - 0.08), (0.28, y + 0.08, seat + 0.08), trousers, Material.CLOTH),
            box((0.08, y - 0.07, 0.28), (0.22, y + 0.07, seat), trousers, Material.CLOTH, lean=0.08),
            box(
                (reach - 0.05, side * 0.24 - 0.05, seat + 0.12),
                (reach + 0.05, side * 0.24 + 0.05, neck - 0.08),
                shirt,
                Material.CLOTH,
                lean=0.05 - reach,
            ),
        ]
    return parts


def bicycle(rng: np.random.Generator, size: Vector, moves: bool) -> Mesh:
    """Two thin wheels, a frame, bars; a rider where it moves."""
    length, width, height = size
    radius, paint = 0.19 * length, pick(rng, PAINTS)
    back, front = -length / 2 + radius, length / 2 - radius
    bike = 1.05 if moves else height
    parts = [wheel((x, 0.0, radius), radius, 0.05) for x in (back, front)]
    parts += [
        _bar((back, 0.0, radius), (-0.12, 0.0, 0.8 * bike), 0.03, paint),
        _bar((0.0, 0.0, 0.28), (0.25 * length, 0.0, 0.78 * bike), 0.03, paint),
        _bar((front, 0.0, radius), (0.25 * length, 0.0, 0.95 * bike), 0.03, paint),
        box((-0.15, -0.03, 0.72 * bike), (0.25 * length, 0.03, 0.78 * bike), paint, Material.METAL),
        box((-0.25, -0.08, 0.82 * bike), (0.02, 0.08, 0.88 * bike), DARK, Material.PLASTIC),
        box((0.22 * length, -width / 2, 0.95 * bike), (0.27 * length, width / 2, bike), DARK, Material.METAL),
    ]
    return Mesh.join(parts + (_rider(rng, 0.9, height, 0.25 * length) if moves else []))


def motorcycle(rng: np.random.Generator, size: Vector, moves: bool) -> Mesh:
    """Fat wheels, tank and seat, fork and bars; a rider where it moves."""
    length, width, height = size
    radius, paint = 0.155 * length, pick(rng, PAINTS)
    bike = 1.12 if moves else 0.9 * height
    parts = [wheel((side * (length / 2 - radius), 0.0, radius), radius, 0.16) for side in (-1, 1)]
    parts += [
        box(
            (-0.18 * length, -0.2, 0.25),
            (0.16 * length, 0.2, 0.6 * bike),
            DARK,
            Material.METAL,
            taper=(1.0, 0.8),
        ),
        box((-0.02 * length, -0.17, 0.58 * bike), (0.2 * length, 0.17, 0.85 * bike), paint, taper=(0.8, 0.7)),
        box((-0.42 * length, -0.16, 0.55 * bike), (0.0, 0.16, 0.72 * bike), paint, taper=(0.9, 0.8)),
        box((-0.35 * length, -0.15, 0.7 * bike), (0.0, 0.15, 0.78 * bike), DARK, Material.PLASTIC),
        _bar((length / 2 - radius, 0.0, radius), (0.22 * length, 0.0, 0.98 * bike), 0.07, DARK),
        box((0.18 * length, -width / 2, 0.94 * bike), (0.22 * length, width / 2, bike), DARK, Material.METAL),
        box((0.26 * length, -0.12, 0.75 * bike), (0.3 * length, 0.12, 0.92 * bike), LAMP, Material.PLASTIC),
        box((-0.44 * length, -0.1, 0.6 * bike), (-0.42 * length, 0.1, 0.7 * bike), TAIL, Material.REFLECTOR),
    ]
    if moves:
        return Mesh.join(parts + _rider(rng, 0.78 * bike, height, 0.18 * length))
    return Mesh.join(
        [*parts, box((0.2 * length, -0.15, bike), (0.24 * length, 0.15, height), WINDOW, Material.GLASS)]
    )


def debris(rng: np.random.Generator, size: Vector, moves: bool) -> Mesh:
    """A rubbish bag or a box somebody lost."""
    length, width, height = size
    if rng.random() < 0.5:
        return blob(
            (0.0, 0.0, height / 2),
            (length / 2, width / 2, height / 2),
            pick(rng, (DARK, WHITE)),
            Material.PLASTIC,
        )
    return box((0.0, 0.0, 0.0), (length, width, height), (0.4, 0.27, 0.15), Material.WOOD, taper=(0.95, 0.95))
