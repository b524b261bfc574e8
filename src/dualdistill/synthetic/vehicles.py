"""Meshes of motor vehicles on four or more wheels.

Frame of a shape: x forward, y left, z up, ground at z = 0. Proportions only: it is stretched to the exact
size of its box afterwards (`Mesh.fitted`). Every function draws one shape for an object of (length, width,
height), which moves (or is ridden) or does not.
"""

from itertools import pairwise

import numpy as np

from dualdistill.synthetic.mesh import Material, Mesh, Vector, box, wheel
from dualdistill.synthetic.palette import (
    DARK,
    LAMP,
    PAINTS,
    TAIL,
    WHITE,
    WINDOW,
    pick,
)


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
        axles = [0.33, -0.3]
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
        axles = [0.5 - 1.1 / length, -0.36, -0.22] if length > 8 else [0.5 - 1.0 / length, -0.32]
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
    parts += [
        box((x * length - 0.06, -w, 0.4 * height), (x * length + 0.06, w, 0.76 * height), paint)
        for x in np.linspace(-0.48, 0.48, max(4, round(length / 1.8)))
    ]
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
        parts += [
            box((x - 0.04, -w * 1.01, deck), (x + 0.04, w * 1.01, 0.99 * height), paint, Material.METAL)
            for x in np.linspace(-0.47, 0.47, 8) * length
        ]
    else:
        parts.append(box((-length / 2, -w, deck), (length / 2, w, 0.36 * height), (0.2, 0.13, 0.08), Material.WOOD))
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
        for start, stop in pairwise(joints):
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
