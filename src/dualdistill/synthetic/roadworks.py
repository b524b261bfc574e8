"""Parts of barriers, cones and what lies about; frame and arguments as in `catalogue.Kind.shape`."""

import numpy as np

from dualdistill.synthetic.mesh import (
    MASONRY,
    METAL,
    PLASTIC,
    REFLECTOR,
    RUBBER,
    WOOD,
    Mesh,
    Vector,
    blob,
    box,
    cylinder,
)
from dualdistill.synthetic.palette import DARK, ORANGE, WHITE, pick


def barrier(rng: np.random.Generator, size: Vector, moves: bool) -> list[Mesh]:
    """A water-filled, concrete or metal barrier; its long side is its width."""
    length, width, height = size
    x, w, kind = length / 2, width / 2, rng.integers(3)
    if kind == 0:
        first, second = pick(rng, (ORANGE,)), pick(rng, (WHITE, ORANGE))
        edges = np.linspace(-w, w, 4)
        return [
            box(x, (a, b), (0, height), color, PLASTIC, taper=(0.45, 1.0))
            for a, b, color in zip(edges[:-1], edges[1:], (first, second, first), strict=True)
        ]
    if kind == 1:
        stone = pick(rng, ((0.42, 0.41, 0.38), (0.5, 0.48, 0.42)))
        return [
            box(x, w, (0, 0.35 * height), stone, MASONRY, taper=(0.55, 1.0)),
            box(0.28 * length, w, (0.35 * height, height), stone, MASONRY, taper=(0.6, 1.0)),
            box(0.3 * length, 0.2, (0.6 * height, 0.75 * height), ORANGE, REFLECTOR),
        ]
    steel = pick(rng, ((0.5, 0.5, 0.5), ORANGE))
    bars = [box(0.04, w, (z * height, (z + 0.1) * height), steel, METAL) for z in (0.15, 0.5, 0.9)]
    posts = [box(0.04, (y - 0.04, y + 0.04), (0, height), steel, METAL) for y in np.linspace(-w, w, 8)]
    feet = [box(x, (y - 0.06, y + 0.06), (0, 0.06), steel, METAL) for y in (-0.8 * w, 0.8 * w)]
    return [*bars, *posts, *feet]


def traffic_cone(rng: np.random.Generator, size: Vector, moves: bool) -> list[Mesh]:
    """A cone with a bright collar on a square foot, or a delineator post."""
    length, _, height = size
    parts = [box(length / 2, length / 2, (0, 0.06 * height), pick(rng, (ORANGE, DARK)), RUBBER)]
    orange = pick(rng, (ORANGE,))
    wide, slope = (length * 0.2, 1.0) if rng.random() < 0.2 else (length * 0.38, 0.12)
    for low, high, color in ((0.05, 0.45, orange), (0.45, 0.68, WHITE), (0.68, 1.0, orange)):
        lower, upper = (wide * (1 + (slope - 1) * share) for share in (low, high))
        material = REFLECTOR if color is WHITE else PLASTIC
        part = cylinder(lower, (high - low) * height, color, material, sides=7, top=upper / lower)
        parts.append(part.moved((0.0, 0.0, low * height)))
    return parts


def debris(rng: np.random.Generator, size: Vector, moves: bool) -> list[Mesh]:
    """A rubbish bag or a lost box."""
    length, width, height = size
    if rng.random() < 0.5:
        radii = (length / 2, width / 2, height / 2)
        return [blob((0.0, 0.0, height / 2), radii, pick(rng, (DARK, WHITE)), PLASTIC)]
    return [box((0.0, length), (0.0, width), (0.0, height), (0.4, 0.27, 0.15), WOOD, taper=(0.95, 0.95))]
