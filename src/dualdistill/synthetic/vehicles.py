"""Parts of motor vehicles on four or more wheels; frame and arguments as in `catalogue.Kind.shape`."""

from itertools import pairwise

import numpy as np

from dualdistill.synthetic.mesh import GLASS, METAL, PLASTIC, REFLECTOR, RUBBER, WOOD, Mesh, Vector, box, wheel
from dualdistill.synthetic.palette import DARK, LAMP, PAINTS, TAIL, WHITE, WINDOW, pick


def _lights(length: float, width: float, low: float, high: float) -> list[Mesh]:
    """Head lamps in front, red ones behind, a plate that mirrors the LiDAR."""
    front, back, w = length / 2, -length / 2, width / 2
    parts = [box((back - 0.02, back), 0.26, (low, low + 0.11), WHITE, REFLECTOR)]
    for side in (-1, 1):
        inner, outer = sorted((side * w * 0.62, side * w * 0.96))
        parts.append(box((front, front + 0.02), (inner, outer), (low, high), LAMP, PLASTIC))
        parts.append(box((back - 0.02, back), (inner, outer), (low, high), TAIL, REFLECTOR))
    return parts


def _axle(x: float, width: float, radius: float, tyre: float = 0.22) -> list[Mesh]:
    return [wheel(x, side * (width / 2 - tyre / 2), radius, tyre) for side in (-1, 1)]


def car(rng: np.random.Generator, size: Vector, moves: bool) -> list[Mesh]:
    """A saloon, hatchback, van or off-roader: body, glass house, roof, wheels, lamps."""
    length, width, height = size
    paint = pick(rng, PAINTS)
    rear, front, belt, roof = (
        (-0.36, 0.2, 0.56, (0.6, 0.82)),
        (-0.48, 0.2, 0.55, (0.75, 0.84)),
        (-0.48, 0.36, 0.5, (0.84, 0.86)),
        (-0.49, 0.22, 0.6, (0.86, 0.88)),
    )[rng.integers(4)]
    radius, low, belt = 0.19 * height, 0.16 * height, belt * height
    x0, x1, w = rear * length, front * length, width / 2
    middle = (x0 + x1) / 2
    half = (x1 - x0) / 2 * roof[0]
    top = (middle - half - 0.1, middle + half - 0.06)
    return [
        box(length / 2, w, (low, belt), paint, taper=(0.97, 0.94)),
        box((x0, x1), w * 0.92, (belt, 0.94 * height), WINDOW, GLASS, taper=roof, lean=-0.08),
        box(top, w * 0.92 * roof[1], (0.93 * height, height), paint, taper=(0.94, 0.92)),
        box((middle - 0.06, middle + 0.06), w * 0.93, (belt, 0.94 * height), paint, taper=(1, 0.85)),
        *_axle(0.31 * length, width, radius),
        *_axle(-0.31 * length, width, radius),
        *_lights(length, width * 0.97, 0.36 * height, 0.45 * height),
    ]


def truck(rng: np.random.Generator, size: Vector, moves: bool) -> list[Mesh]:
    """A lorry with a box body, or a pick-up when it is short."""
    length, width, height = size
    w, paint = width / 2, pick(rng, PAINTS)
    if length < 6.2:
        cabin = ((-0.08 * length, 0.25 * length), w * 0.9, (0.58 * height, height))
        parts = [
            box(length / 2, w, (0.2 * height, 0.58 * height), paint, taper=(0.98, 0.95)),
            box(*cabin, WINDOW, GLASS, taper=(0.7, 0.85)),
            box((-0.03 * length, 0.19 * length), w * 0.78, (0.93 * height, 1.01 * height), paint),
            box((-0.48 * length, -0.1 * length), w * 0.85, (0.575 * height, 0.59 * height), DARK),
        ]
        radius = 0.2 * height
        axles = [0.33, -0.3]
    else:
        back, front = -length / 2, length / 2
        cab = 0.5 * length - rng.uniform(1.7, 2.3)
        cargo = pick(rng, (WHITE, WHITE, (0.5, 0.5, 0.52), *PAINTS))
        roof = rng.uniform(0.75, 0.98)
        flat = rng.random() < 0.25
        windows = (0.5 * height, roof * 0.93 * height)
        parts = [
            box((back, cab), w * 0.8, (0.16 * height, 0.27 * height), DARK, METAL),
            box((cab + 0.1, front), w, (0.14 * height, 0.5 * height), paint, taper=(0.98, 0.98)),
            box((cab + 0.1, front), w * 0.98, windows, WINDOW, GLASS, taper=(0.9, 0.96)),
            box((cab + 0.1, front - 0.15), w * 0.95, (roof * 0.9 * height, roof * height), paint),
            box((back, cab), w, (0.25 * height, (0.45 if flat else 1.0) * height), cargo, METAL),
        ]
        if flat:
            load = (-0.45 * length, cab - rng.uniform(0.5, 2.0))
            parts.append(box(load, (-w * 0.8, w * 0.85), (0.45 * height, height), pick(rng, PAINTS), WOOD))
        radius = min(0.5, 0.17 * height)
        axles = [0.5 - 1.1 / length, -0.36, -0.22] if length > 8 else [0.5 - 1.0 / length, -0.32]
    for x in axles:
        parts += _axle(x * length, width, radius, 0.28)
    return parts + _lights(length, width * 0.96, 0.3 * height, 0.36 * height)


def bus(rng: np.random.Generator, size: Vector, moves: bool) -> list[Mesh]:
    """A long body with a band of windows, doors and a coloured stripe."""
    length, width, height = size
    x, w, paint = length / 2, width / 2, pick(rng, (*PAINTS, WHITE, (0.65, 0.3, 0.02)))
    stripe = pick(rng, PAINTS)
    parts = [
        box(x, w, (0.1 * height, 0.4 * height), paint),
        box(x, w * 1.005, (0.3 * height, 0.38 * height), stripe),
        box(x, w * 0.985, (0.4 * height, 0.76 * height), WINDOW, GLASS),
        box(x, w, (0.75 * height, height), paint, taper=(0.98, 0.93)),
        box((x, x + 0.03), w * 0.6, (0.8 * height, 0.9 * height), DARK, GLASS),
    ]
    pillars = np.linspace(-0.48, 0.48, max(4, round(length / 1.8))) * length
    parts += [box((at - 0.06, at + 0.06), w, (0.4 * height, 0.76 * height), paint) for at in pillars]
    for place in (0.31, -0.28):
        parts += _axle(place * length, width * 1.005, 0.15 * height, 0.3)
    return parts + _lights(length, width, 0.2 * height, 0.27 * height)


def trailer(rng: np.random.Generator, size: Vector, moves: bool) -> list[Mesh]:
    """A semi-trailer, a container on a chassis or a flat bed: wheels at the back, no cab."""
    length, width, height = size
    x, w, paint = length / 2, width / 2, pick(rng, (WHITE, *PAINTS, (0.45, 0.16, 0.08)))
    deck = 0.3 * height
    parts = [box(x, w * 0.7, (0.22 * height, deck), DARK, METAL)]
    if rng.random() < 0.75:
        parts.append(box(x, w, (deck, height), paint, METAL))
        ribs = np.linspace(-0.47, 0.47, 8) * length
        parts += [box((at - 0.04, at + 0.04), w * 1.01, (deck, 0.99 * height), paint, METAL) for at in ribs]
    else:
        parts.append(box(x, w, (deck, 0.36 * height), (0.2, 0.13, 0.08), WOOD))
        parts.append(box((0.48 * length, 0.5 * length), w, (deck, height), paint, METAL))
        for start, stop in ((-0.42, -0.1), (-0.02, 0.3)):
            stack = (0.36 * height, rng.uniform(0.6, 0.95) * height)
            parts.append(box((start * length, stop * length), w * 0.8, stack, pick(rng, PAINTS), WOOD))
    for place in (-0.42, -0.32, -0.22):
        parts += _axle(place * length, width, 0.14 * height, 0.3)
    for y in (-w * 0.5, w * 0.5):
        parts.append(box((0.28 * length, 0.28 * length + 0.12), (y - 0.06, y + 0.06), (0, deck), DARK))
    return [*parts, box((-x - 0.02, -x), w * 0.9, (deck, deck + 0.12), TAIL, REFLECTOR)]


def construction_vehicle(rng: np.random.Generator, size: Vector, moves: bool) -> list[Mesh]:
    """An excavator on tracks or a wheel loader, with its arm or bucket in front."""
    length, width, height = size
    w = width / 2
    paint = pick(rng, ((0.75, 0.45, 0.02), (0.8, 0.3, 0.02), (0.7, 0.6, 0.1)))
    if rng.random() < 0.5:
        cabin = ((-0.14 * length, 0.08 * length), (0.1 * w, 0.9 * w), (0.55 * height, 0.92 * height))
        parts = [
            box((-0.5 * length, 0.1 * length), (y - 0.3 * w, y + 0.3 * w), (0, 0.26 * height), DARK, RUBBER)
            for y in (-w * 0.7, w * 0.7)
        ]
        parts += [
            box((-0.5 * length, 0.06 * length), w * 0.9, (0.3 * height, 0.58 * height), paint),
            box(*cabin, WINDOW, GLASS, taper=(0.85, 0.95)),
            box((-0.14 * length, 0.06 * length), (0.12 * w, 0.88 * w), (0.9 * height, 0.96 * height), paint),
        ]
        joints = np.array(
            [(0.05 * length, 0.45 * height), (0.3 * length, 0.97 * height), (0.46 * length, 0.2 * height)]
        )
        for start, stop in pairwise(joints):
            for share in np.linspace(0.0, 1.0, 6):
                x, z = start + share * (stop - start)
                parts.append(box((x - 0.28, x + 0.28), (-0.35 * w, -0.02 * w), (z - 0.22, z + 0.22), paint))
        bucket = ((0.36 * length, 0.5 * length), (-0.5 * w, 0.15 * w), (0.02 * height, 0.22 * height))
        return [*parts, box(*bucket, DARK, METAL)]
    cab = ((-0.2 * length, 0.1 * length), 0.6 * w, (0.5 * height, 0.94 * height))
    shovel = ((0.34 * length, 0.5 * length), w, (0.04 * height, 0.32 * height))
    parts = [
        box((-0.5 * length, -0.05 * length), 0.75 * w, (0.28 * height, 0.56 * height), paint),
        box(*cab, WINDOW, GLASS, taper=(0.85, 0.9)),
        box((-0.2 * length, 0.09 * length), 0.58 * w, (0.92 * height, height), paint),
        box((0.0, 0.36 * length), 0.5 * w, (0.25 * height, 0.38 * height), paint),
        box(*shovel, DARK, METAL, taper=(0.6, 1.0)),
    ]
    for x in (0.2, -0.32):
        parts += _axle(x * length, width * 0.92, 0.22 * height, 0.4)
    return parts
