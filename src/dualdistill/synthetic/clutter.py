"""Parts of objects along a street that are never annotated; many resemble annotated ones."""

import numpy as np

from dualdistill.synthetic.mesh import (
    CLOTH,
    FACADE,
    GLASS,
    LEAF,
    MASONRY,
    METAL,
    PLASTIC,
    REFLECTOR,
    WOOD,
    Mesh,
    Rgb,
    blob,
    box,
    cylinder,
)
from dualdistill.synthetic.palette import DARK, ORANGE, WHITE, pick

WALLS: tuple[Rgb, ...] = (
    *((0.45, 0.22, 0.15), (0.55, 0.5, 0.42), (0.4, 0.4, 0.42), (0.62, 0.58, 0.5)),
    *((0.3, 0.33, 0.38), (0.5, 0.36, 0.2), (0.25, 0.16, 0.12)),
)
LEAVES: tuple[Rgb, ...] = ((0.06, 0.16, 0.04), (0.1, 0.2, 0.05), (0.16, 0.18, 0.05), (0.25, 0.16, 0.04))
BARK: Rgb = (0.12, 0.08, 0.05)
STEEL: Rgb = (0.3, 0.31, 0.32)
SIGNS: tuple[Rgb, ...] = ((0.6, 0.03, 0.03), (0.05, 0.15, 0.5), (0.05, 0.35, 0.12), (0.7, 0.55, 0.03), WHITE)


def house(rng: np.random.Generator, length: float, depth: float) -> list[Mesh]:
    """A block with windows (painted by the camera on every facade), a base and perhaps a roof."""
    height = rng.choice([rng.uniform(4, 9), rng.uniform(8, 16), rng.uniform(14, 32)])
    x, y = length / 2, depth / 2
    parts = [box(x, y, (0, height), pick(rng, WALLS), FACADE)]
    if rng.random() < 0.4:
        parts.append(box(x + 0.15, y + 0.15, (0, rng.uniform(0.6, 3.2)), pick(rng, WALLS), MASONRY))
    if height < 10 and rng.random() < 0.6:
        roof = pick(rng, ((0.3, 0.1, 0.06), (0.12, 0.12, 0.13)))
        parts.append(box(x + 0.4, y + 0.4, (height, height + 0.3 * depth), roof, MASONRY, taper=(0.9, 0.05)))
    if rng.random() < 0.4:
        parts.append(box(0.3 * x, y + 1.4, (2.7, 3.0), pick(rng, SIGNS), CLOTH))
    return parts


def tower(rng: np.random.Generator) -> Mesh:
    """Part of the skyline."""
    x, y, height = rng.uniform(8, 22), rng.uniform(8, 22), rng.uniform(8, 45)
    return box(x, y, (0, height), pick(rng, WALLS), FACADE)


def tree(rng: np.random.Generator) -> list[Mesh]:
    """A trunk and a crown of a few blobs."""
    height, girth = rng.uniform(3.5, 9.0), rng.uniform(0.1, 0.28)
    crown, leaf = rng.uniform(1.2, 2.6), pick(rng, LEAVES)
    parts = [cylinder(girth, 0.7 * height, BARK, WOOD, sides=6, top=0.6)]
    for _ in range(rng.integers(1, 4)):
        x, y = rng.normal(0, 0.3 * crown, 2)
        radius = crown * rng.uniform(0.6, 1.0)
        center = (float(x), float(y), height * rng.uniform(0.7, 0.95))
        parts.append(blob(center, (radius, radius, radius * rng.uniform(0.7, 1.1)), leaf, LEAF))
    return parts


def bush(rng: np.random.Generator) -> list[Mesh]:
    """About as high as a person."""
    radius, height, leaf = rng.uniform(0.35, 1.0), rng.uniform(0.6, 2.0), pick(rng, LEAVES)
    return [blob((0.0, 0.0, height / 2), (radius, radius, height / 2), leaf, LEAF)]


def lamp_post(rng: np.random.Generator) -> list[Mesh]:
    """A lamp post with its arm along +y."""
    height, reach = rng.uniform(5, 9), rng.uniform(0.8, 2.5)
    return [
        cylinder(0.09, height, STEEL, METAL, sides=6, top=0.7),
        box(0.05, (0.0, reach), (height - 0.1, height), STEEL, METAL),
        box(0.12, (reach - 0.5, reach), (height - 0.18, height - 0.08), WHITE, PLASTIC),
    ]


def traffic_light(rng: np.random.Generator) -> list[Mesh]:
    height = rng.uniform(2.8, 3.6)
    lamp = pick(rng, ((0.9, 0.05, 0.03), (0.05, 0.8, 0.2)))
    return [
        cylinder(0.07, height, STEEL, METAL, sides=6),
        box(0.16, 0.16, (height - 0.9, height), DARK, PLASTIC),
        box(0.18, 0.08, (height - 0.28, height - 0.1), lamp, PLASTIC),
    ]


def sign(rng: np.random.Generator) -> list[Mesh]:
    """A mirror-bright panel on a post, facing along x."""
    height, width = rng.uniform(1.6, 3.0), rng.uniform(0.25, 0.5)
    post = cylinder(0.04, height, STEEL, METAL, sides=5)
    return [post, box(0.03, width, (height - 2 * width, height), pick(rng, SIGNS), REFLECTOR)]


def bollard(rng: np.random.Generator) -> list[Mesh]:
    """A post as high as a traffic cone, some of them orange."""
    color = pick(rng, (STEEL, DARK, WHITE, ORANGE))
    return [cylinder(rng.uniform(0.06, 0.16), rng.uniform(0.6, 1.1), color, METAL, sides=6)]


def bin_(rng: np.random.Generator) -> list[Mesh]:
    """A litter bin or letter box: person-sized at a distance."""
    color = pick(rng, ((0.05, 0.2, 0.08), (0.05, 0.1, 0.4), STEEL, (0.5, 0.04, 0.03)))
    x, y, height = rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.4), rng.uniform(0.9, 1.6)
    return [box(x, y, (0, height), color, METAL, taper=(0.95, 0.95))]


def cabinet(rng: np.random.Generator) -> list[Mesh]:
    """A switch box, kiosk or container: car-sized."""
    x, y, height = rng.uniform(0.5, 2.8), rng.uniform(0.3, 1.2), rng.uniform(1.1, 2.7)
    return [box(x, y, (0, height), pick(rng, (*WALLS, STEEL, (0.1, 0.2, 0.4))), METAL)]


def wall(rng: np.random.Generator, length: float) -> list[Mesh]:
    """A low wall, a hedge or a fence along x; the low ones are as high as a barrier."""
    kind, x = rng.integers(3), length / 2
    if kind == 0:
        return [box(x, 0.15, (0, rng.uniform(0.7, 2.2)), pick(rng, WALLS), MASONRY)]
    if kind == 1:
        return [box(x, 0.4, (0, rng.uniform(0.8, 1.8)), pick(rng, LEAVES), LEAF, taper=(0.98, 0.7))]
    height, color = rng.uniform(0.9, 1.8), pick(rng, (STEEL, DARK, WHITE, BARK))
    rails = [box(x, 0.03, (z * height, z * height + 0.08), color, METAL) for z in (0.2, 0.9)]
    return rails + [box((p - 0.04, p + 0.04), 0.02, (0, height), color, METAL) for p in np.arange(-x, x, 0.5)]


def shelter(rng: np.random.Generator) -> list[Mesh]:
    """A bus shelter, open towards -y."""
    x = rng.uniform(1.5, 2.2)
    return [
        box(x, (0.5, 0.56), (0.1, 2.3), (0.2, 0.25, 0.28), GLASS),
        box(x, (-0.7, 0.6), (2.35, 2.5), STEEL, METAL),
        box((x - 0.1, x), (-0.6, 0.5), (0.3, 2.0), pick(rng, SIGNS), PLASTIC),
        box((-x, -x + 0.1), (0.45, 0.55), (0, 2.4), STEEL, METAL),
        box((-0.7 * x, 0.6 * x), (0.2, 0.5), (0.42, 0.5), BARK, WOOD),
    ]
