"""Numbers that sensors and calibrations cannot have: one set of checks for tables, sensor files and a user's rigs."""

import numpy as np
from jaxtyping import Bool, Float, Int

VALUES_PER_POINT = 5
"""x, y, z (metres), intensity (0 to 255), ring index: float32 each."""
BYTES_PER_POINT = VALUES_PER_POINT * 4

FARTHEST = 1e8
"""Metres: a coordinate beyond is an error of the tables, and too coarse even in float64 for what follows."""
FARTHEST_POINT = 1000.0
"""Metres: no LiDAR on a car reaches farther."""
FARTHEST_MOUNTING = 100.0
"""Metres: sensors are mounted nearer to the frame of their car."""
SHORTEST_FOCAL = 1.0
"""Pixels."""
MATRIX = f"fx, skew, cx; 0, fy, cy; 0, 0, 1 with focal lengths of {SHORTEST_FOCAL:g} pixel or more, and less skew"
"""What a camera matrix is, for messages."""
LARGEST_SIDE = 1 << 16
"""Pixels: images are smaller."""
LARGEST_BOX = 100.0
"""Metres: annotated objects are shorter."""
FARTHEST_BOX = 1000.0
"""Metres from the car: annotated objects are nearer."""
FASTEST_OBJECT = 60.0
"""Metres a second."""
FASTEST_CAR = 100.0
"""Metres a second, of the car that carries the sensors."""


def broken_points(content: bytes) -> str | None:
    """Why the content of a LiDAR file cannot be computed with; None if it can."""
    if len(content) % BYTES_PER_POINT:
        four = ", but of 16: are these points of four values (KITTI)?" if not len(content) % 16 else ""
        return f"{len(content)} bytes, which is no multiple of {BYTES_PER_POINT} (five float32 a point){four}"
    values = np.frombuffer(content, dtype=np.float32)
    if not (values.max(initial=0) < FARTHEST and values.min(initial=0) > -FARTHEST):  # NaN is not
        return f"numbers that are not finite or beyond {FARTHEST:g}: no five float32 a point"
    return None


def implausible_points(content: bytes) -> str | None:
    """Why the content of a LiDAR file cannot be that of a nuScenes-like sensor; None if it can."""
    if (broken := broken_points(content)) or not content:
        return broken or "no point"
    points = np.frombuffer(content, dtype=np.float32).reshape(-1, VALUES_PER_POINT)
    extent, intensity, ring = np.abs(points[:, :3]).max(), points[:, 3], points[:, 4]
    if extent > FARTHEST_POINT:
        return f"points {extent:.3g} m away, farther than {FARTHEST_POINT:g} m"
    if extent < 0.1:
        return "all points in the sensor's origin"
    if intensity.min() < 0 or intensity.max() > 255:
        return f"intensities from {intensity.min():.3g} to {intensity.max():.3g}, expected 0 to 255"
    if (ring != ring.round()).any() or ring.min() < 0 or ring.max() > 255:
        return "ring numbers (the fifth value of a point) that are not whole numbers from 0 to 255"
    return None


def good_matrices(intrinsics: Float[np.ndarray, "cam 3 3"]) -> Bool[np.ndarray, "cam"]:
    """Whether camera matrices have focal lengths that images can have, no more skew than that, and zeros and the one
    below the diagonal."""
    focal, skew, below = intrinsics[:, [0, 1], [0, 1]], intrinsics[:, 0, 1], intrinsics[:, [1, 2, 2, 2], [0, 0, 1, 2]]
    lengths = ((focal >= SHORTEST_FOCAL) & (focal < FARTHEST)).all(axis=1)
    return lengths & (np.abs(skew) <= focal[:, 0]) & (below == (0, 0, 0, 1)).all(axis=1)


def good_mountings(translation: Float[np.ndarray, "sensors 3"]) -> Bool[np.ndarray, "sensors"]:
    """Whether sensors are on a car."""
    return (np.abs(translation) < FARTHEST_MOUNTING).all(axis=1)


def good_sizes(size: Int[np.ndarray, "cam 2"]) -> Bool[np.ndarray, "cam"]:
    """Whether images have a height and a width."""
    return np.asarray(((size > 0) & (size <= LARGEST_SIDE)).all(axis=1))


def good_principal_points(
    intrinsics: Float[np.ndarray, "cam 3 3"], size: Int[np.ndarray, "cam 2"]
) -> Bool[np.ndarray, "cam"]:
    """Whether principal points lie inside the images of that height and width."""
    principal = intrinsics[:, [1, 0], 2]
    return np.asarray(((principal >= 0) & (principal <= size)).all(axis=1))
