"""Colours of surfaces, fixed to the place or to the thing, so that they are the same in every picture.

Arrays of vectors lie `[3, hits]` here: NumPy is several times faster along long rows.
"""

import numpy as np
from jaxtyping import Float, Float32, Int

from dualdistill.synthetic.mesh import FACADE, GRAIN, GROUND
from dualdistill.synthetic.plan import ScenePlan
from dualdistill.synthetic.raycast import Stage
from dualdistill.synthetic.street import ASPHALT, KERB, PATCH, PAVEMENT, PLAZA, WHITE, YELLOW

Planes = Float32[np.ndarray, "3 hits"]

_GRAIN = GRAIN.astype(np.float32)
_GROUND_COLORS = np.zeros((3, 8), dtype=np.float32)
_GROUND_COLORS[:, [ASPHALT, PATCH, WHITE, YELLOW, PAVEMENT, KERB, PLAZA]] = np.transpose(
    [
        (0.13, 0.13, 0.135),
        (0.085, 0.085, 0.09),
        (0.55, 0.55, 0.54),
        (0.55, 0.4, 0.06),
        (0.3, 0.29, 0.27),
        (0.38, 0.37, 0.35),
        (0.2, 0.2, 0.2),
    ]
)


def albedo(
    stage: Stage,
    plan: ScenePlan,
    face: Int[np.ndarray, "hits"],
    weights: Float32[np.ndarray, "hits 2"],
    place: Planes,
    distance: Float32[np.ndarray, "hits"],
) -> Planes:
    """Share of light that each hit surface sends back, by colour."""
    is_ground = stage.material[face] == GROUND
    ground, other = np.flatnonzero(is_ground), np.flatnonzero(~is_ground)
    result = np.empty((3, len(face)), dtype=np.float32)
    result[:, ground] = _ground(plan, place[0, ground], place[1, ground], distance[ground])
    result[:, other] = _things(stage, face[other], weights[other].T, distance[other])
    return result


def _things(
    stage: Stage, face: Int[np.ndarray, "hits"], weights: Float[np.ndarray, "2 hits"], distance: np.ndarray
) -> Planes:
    """Colour of the face, grain of its material; windows on walls."""
    corners = stage.local[face].transpose(1, 2, 0)  # corner axis hits
    local = corners[0] + weights[0] * (corners[1] - corners[0]) + weights[1] * (corners[2] - corners[0])
    x, y, z = local
    material, shade = stage.material[face], stage.shade[face]
    fine = _hash(9 * x + 50 * shade, 9 * y, 9 * z) - np.float32(0.5)
    coarse = np.sin(np.float32(2.1) * x + np.float32(1.7) * y + np.float32(2.9) * z + 6 * shade)
    # Texture smaller than a pixel would flicker: it fades with distance.
    fade = 1 / (1 + (distance / 18) ** 2)
    grain = 1 + _GRAIN[material] * (np.float32(1.6) * fine * fade + np.float32(0.4) * coarse)
    result = stage.color[face].T * grain
    walls = np.flatnonzero((material == FACADE) & (np.abs(stage.normal[face, 2]) < 0.5))
    result[:, walls] = _windows(result[:, walls], local[:, walls], shade[walls])
    return result


def _windows(wall: Planes, local: Planes, shade: Float32[np.ndarray, "hits"]) -> Planes:
    """A grid of dark and light panes; every house has its own grid, some have none."""
    # Walls lie along the axes of their house: one coordinate is constant, the other runs along the wall.
    column = (local[0] + local[1]) / (np.float32(1.6) + np.float32(2.2) * shade)
    row = local[2] / (np.float32(2.7) + np.float32(0.9) * ((7 * shade) % 1))
    pane = np.abs(column % 1 - np.float32(0.5)) < np.float32(0.18) + np.float32(0.2) * ((3 * shade) % 1)
    pane &= (np.abs(row % 1 - np.float32(0.55)) < np.float32(0.26)) & (shade < 0.9)
    tint = np.float32(0.03) + np.float32(0.22) * _hash(column, row, 40 * shade) ** 3
    bluish = np.array([[0.8], [0.95], [1.1]], dtype=np.float32)
    return np.where(pane, bluish * tint, wall)


def _ground(
    plan: ScenePlan,
    x: Float32[np.ndarray, "hits"],
    y: Float32[np.ndarray, "hits"],
    distance: Float32[np.ndarray, "hits"],
) -> Planes:
    """Road, pavement and terrain, with grain and stains."""
    colors = _GROUND_COLORS.copy()
    colors[:, 0] = plan.terrain
    code = plan.ground.look_up(x, y)
    fade = 1 / (1 + (distance / 9) ** 2)
    none = np.zeros_like(x)
    grain = (_hash(12 * x, 12 * y, none) - np.float32(0.5)) * fade
    grain += np.float32(0.35) * (_hash(np.float32(1.6) * x, np.float32(1.6) * y, none) - np.float32(0.5))
    wide, long = np.float32(0.6), np.float32(0.9)
    stains = np.sin(long * x + np.sin(wide * y)) * np.sin(wide * y - np.float32(0.3) * x)
    brightness = 1 + np.float32(0.35) * grain + np.float32(0.1) * stains
    slab, joint = np.float32(0.8), np.float32(0.04) + np.float32(0.004) * distance
    brightness[(code == PAVEMENT) & ((x % slab < joint) | (y % slab < joint))] *= 0.8
    return colors[:, code] * brightness


def _hash(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Float32[np.ndarray, "hits"]:
    """A number in [0, 1) for every cell of the unit lattice, the same in every picture."""
    key = np.zeros(len(x), dtype=np.uint32)
    for axis, prime in ((x, 73856093), (y, 19349663), (z, 83492791)):
        key += np.floor(axis).astype(np.int32).view(np.uint32) * np.uint32(prime)
    key = (key ^ (key >> np.uint32(13))) * np.uint32(1274126177)
    return (key >> np.uint32(16)).astype(np.float32) / np.float32(65536)
