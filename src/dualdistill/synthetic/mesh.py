"""Triangle soups with a colour and a material on every face, and the few solids everything is built of."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

Rgb = tuple[float, float, float]
"""Linear albedo, 0 to 1."""
Vector = tuple[float, float, float]

Range = float | tuple[float, float]
"""From and to along one axis; a number r is the range from -r to r."""

GROUND, PAINT, GLASS, RUBBER, CLOTH, FACADE, MASONRY, LEAF, WOOD, METAL, PLASTIC, REFLECTOR = range(12)
"""Materials of faces, which determine LiDAR reflectivity and texture."""
REFLECTIVITY = np.array([0.14, 0.45, 0.04, 0.06, 0.3, 0.3, 0.35, 0.35, 0.25, 0.3, 0.4, 1.0])
"""Share of the LiDAR pulse that a face at right angles sends back, by material."""
GRAIN = np.array([0.0, 0.03, 0.02, 0.1, 0.22, 0.1, 0.2, 0.45, 0.25, 0.06, 0.06, 0.0])
"""Relative brightness variation of the texture, by material."""


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Triangles in one frame, metres."""

    triangles: Float[np.ndarray, "faces 3 3"]
    color: Float[np.ndarray, "faces 3"]
    material: Int[np.ndarray, "faces"]

    @property
    def normals(self) -> Float[np.ndarray, "faces 3"]:
        """Unit vectors that point out of the solids."""
        first, second, third = (self.triangles[:, corner] for corner in range(3))
        normal = np.cross(second - first, third - first)
        return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)

    def __len__(self) -> int:
        return len(self.material)

    @classmethod
    def join(cls, parts: Iterable["Mesh"]) -> "Mesh":
        listed = list(parts)
        return cls(
            triangles=np.concatenate([part.triangles for part in listed]),
            color=np.concatenate([part.color for part in listed]),
            material=np.concatenate([part.material for part in listed]),
        )

    def fitted(self, size: Vector, slack: float) -> "Mesh":
        """Stretched so that it fills the centred box of `size` up to `slack` metres on every side."""
        corners = self.triangles.reshape(-1, 3)
        low, high = corners.min(axis=0), corners.max(axis=0)
        scale = (np.asarray(size) - 2 * slack) / (high - low)
        return replace(self, triangles=(self.triangles - (low + high) / 2) * scale)

    def turned(self, angle: float, axis: int) -> "Mesh":
        """Rotated about a coordinate axis through the origin, radians."""
        cos, sin = np.cos(angle), np.sin(angle)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        rotation = np.eye(3)
        rotation[i, i], rotation[i, j], rotation[j, i], rotation[j, j] = cos, -sin, sin, cos
        return replace(self, triangles=self.triangles @ rotation.T)

    def moved(self, offset: Vector) -> "Mesh":
        return replace(self, triangles=self.triangles + np.asarray(offset))


def _soup(vertices: np.ndarray, faces: np.ndarray, color: Rgb, material: int) -> Mesh:
    count = len(faces)
    return Mesh(triangles=vertices[faces], color=np.full((count, 3), color), material=np.full(count, material))


# Here and below, faces are wound so that their normals point outwards.
_BOX_FACES = np.array(
    [
        *([0, 2, 1], [0, 3, 2], [4, 5, 6], [4, 6, 7], [0, 1, 5], [0, 5, 4]),
        *([1, 2, 6], [1, 6, 5], [2, 3, 7], [2, 7, 6], [3, 0, 4], [3, 4, 7]),
    ]
)


def box(
    x: Range,
    y: Range,
    z: Range,
    color: Rgb,
    material: int = PAINT,
    *,
    taper: tuple[float, float] = (1, 1),
    lean: float = 0,
) -> Mesh:
    """A box over three ranges, its top scaled by `taper` along x and y and shifted by `lean` along x."""
    (x0, x1), (y0, y1), (z0, z1) = (side if isinstance(side, tuple) else (-side, side) for side in (x, y, z))
    cx, cy = (x0 + x1) / 2 + lean, (y0 + y1) / 2
    dx, dy = (x1 - x0) / 2 * taper[0], (y1 - y0) / 2 * taper[1]
    vertices = np.array(
        [
            *((x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)),
            *((cx - dx, cy - dy, z1), (cx + dx, cy - dy, z1), (cx + dx, cy + dy, z1), (cx - dx, cy + dy, z1)),
        ]
    )
    return _soup(vertices, _BOX_FACES, color, material)


def cylinder(radius: float, height: float, color: Rgb, material: int, *, sides: int = 8, top: float = 1.0) -> Mesh:
    """An upright prism on the plane z = 0; `top` scales its upper end (nearly 0 for a cone)."""
    angle = np.arange(sides) * (2 * np.pi / sides)
    ring = radius * np.column_stack([np.cos(angle), np.sin(angle)])
    vertices = np.concatenate(
        [
            np.column_stack([ring, np.zeros(sides)]),
            np.column_stack([ring * top, np.full(sides, height)]),
            [[0, 0, 0], [0, 0, height]],
        ]
    )
    here, there = np.arange(sides), (np.arange(sides) + 1) % sides
    faces = np.concatenate(
        [
            np.column_stack([here, there, there + sides]),
            np.column_stack([here, there + sides, here + sides]),
            np.column_stack([there, here, np.full(sides, 2 * sides)]),
            np.column_stack([here + sides, there + sides, np.full(sides, 2 * sides + 1)]),
        ]
    )
    return _soup(vertices, faces, color, material)


def wheel(x: float, y: float, radius: float, width: float) -> Mesh:
    """A disc that stands on the ground and rolls along x."""
    lying = cylinder(radius, width, (0.03, 0.03, 0.03), RUBBER).moved((0.0, 0.0, -width / 2))
    return lying.turned(np.pi / 2, axis=0).moved((x, y, radius))


def blob(center: Vector, radii: Vector, color: Rgb, material: int) -> Mesh:
    """A coarse ellipsoid."""
    rings, sides = 4, 7
    polar = np.pi * np.arange(rings + 1) / rings
    angle = np.arange(sides) * (2 * np.pi / sides)
    unit = np.stack(
        [
            np.sin(polar)[:, None] * np.cos(angle + 0.4 * np.arange(rings + 1)[:, None]),
            np.sin(polar)[:, None] * np.sin(angle + 0.4 * np.arange(rings + 1)[:, None]),
            np.broadcast_to(np.cos(polar)[:, None], (rings + 1, sides)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    ring, side = (grid.ravel() for grid in np.meshgrid(np.arange(rings), np.arange(sides), indexing="ij"))
    here, there = ring * sides + side, ring * sides + (side + 1) % sides
    # At the poles a ring is a point, and one of the two triangles of each quad has no area.
    upper = np.column_stack([here, there + sides, there])[ring > 0]
    lower = np.column_stack([here, here + sides, there + sides])[ring < rings - 1]
    return _soup(unit * np.asarray(radii) + np.asarray(center), np.concatenate([upper, lower]), color, material)
