"""Meshes of barriers, cones and what lies about.

Frame of a shape: x forward, y left, z up, ground at z = 0. Proportions only: it is stretched to the exact
size of its box afterwards (`Mesh.fitted`). Every function draws one shape for an object of (length, width,
height), which moves (or is ridden) or does not.
"""

import numpy as np

from dualdistill.synthetic.mesh import Material, Mesh, Vector, blob, box, cylinder
from dualdistill.synthetic.palette import (
    DARK,
    ORANGE,
    WHITE,
    pick,
)


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
        box((-0.04, -w, z * height), (0.04, w, (z + 0.1) * height), steel, Material.METAL) for z in (0.15, 0.5, 0.9)
    ]
    posts = [box((-0.04, y - 0.04, 0), (0.04, y + 0.04, height), steel, Material.METAL) for y in np.linspace(-w, w, 8)]
    feet = [
        box((-length / 2, y - 0.06, 0), (length / 2, y + 0.06, 0.06), steel, Material.METAL)
        for y in (-0.8 * w, 0.8 * w)
    ]
    return Mesh.join([*bars, *posts, *feet])


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


def debris(rng: np.random.Generator, size: Vector, moves: bool) -> Mesh:
    """A rubbish bag or a lost box."""
    length, width, height = size
    if rng.random() < 0.5:
        return blob(
            (0.0, 0.0, height / 2),
            (length / 2, width / 2, height / 2),
            pick(rng, (DARK, WHITE)),
            Material.PLASTIC,
        )
    return box((0.0, 0.0, 0.0), (length, width, height), (0.4, 0.27, 0.15), Material.WOOD, taper=(0.95, 0.95))
