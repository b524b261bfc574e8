"""LiDAR files, and several sweeps gathered in the frame of the last one (docs/methods/centerpoint.md#sweeps)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dualdistill.data.index import NuscenesIndex
from dualdistill.data.plausible import VALUES_PER_POINT, broken_points
from dualdistill.errors import UserError
from dualdistill.files import read_bytes
from dualdistill.geometry.transforms import transform

CLOSE = 1.0
"""Points of earlier sweeps with |x| and |y| below this many metres are returns from the car itself."""


def read_points(path: Path) -> Float[Tensor, "points 5"]:
    """Points of one LIDAR_TOP file, in the sensor frame: x, y, z, intensity, ring.

    Raises:
        UserError: if the file is missing, cut off, or of another layout.
    """
    content = read_bytes(path)
    if broken := broken_points(content):
        raise UserError(f"LiDAR file {path} is cut off or of another layout: {broken}; restore it from the archive")
    values = np.frombuffer(content, dtype=np.float32).reshape(-1, VALUES_PER_POINT)
    return torch.from_numpy(values.copy())


Layout = Callable[[int, Float[Tensor, "points 5"], float], Tensor]
"""From a record, its points as `read_points` has them, and its seconds before the key frame to the columns wanted, x, y
and z first."""


def sweep_candidates(index: NuscenesIndex, key_row: int, num_sweeps: int) -> list[int]:
    """Rows from which `choose_sweeps` chooses: up to `num_sweeps` before the key frame in its scene, latest first; none
    where only the key frame is wanted."""
    rows: list[int] = []
    row = key_row
    while 1 < num_sweeps > len(rows) and (row := int(index.data_prev[row])) >= 0:
        rows.append(row)
    return rows


def choose_sweeps(
    index: NuscenesIndex, key_row: int, num_sweeps: int, generator: np.random.Generator | None = None
) -> list[int]:
    """Rows of the sweeps that go with the key frame: `num_sweeps - 1`, fewer where a scene starts.

    Args:
        num_sweeps: The key frame's included.
        generator: If given, one of the `num_sweeps` latest sweeps is left out at random, as in mmdet3d;
            otherwise the oldest of them is.
    """
    rows = sweep_candidates(index, key_row, num_sweeps)
    if generator is None or len(rows) < num_sweeps:
        return rows[: num_sweeps - 1]
    left_out = int(generator.integers(num_sweeps))
    return rows[:left_out] + rows[left_out + 1 :]


def without_close_points(points: Float[Tensor, "points chan"]) -> Float[Tensor, "kept chan"]:
    """Points not on the car itself; in the sensor's own frame."""
    far = (points[:, 0].abs() >= CLOSE) | (points[:, 1].abs() >= CLOSE)
    return points.index_select(0, far.nonzero().squeeze(1))  # faster than by a mask


def key_from_sweeps(index: NuscenesIndex, key_row: int, rows: Sequence[int]) -> Float[Tensor, "rows 4 4"]:
    """Sensor frames of records to the sensor frame of another, through the world; float64."""
    poses = index.global_from_sensor(np.array([key_row, *rows]))
    return torch.from_numpy(np.linalg.inv(poses[0]) @ poses[1:])


def with_lag(row: int, points: Float[Tensor, "points 5"], lag: float) -> Float[Tensor, "points 5"]:
    """The `Layout` of plain LiDAR points: x, y, z (metres), intensity, time lag (seconds)."""
    points = points.clone()
    points[:, 4] = lag
    return points


def accumulate(
    index: NuscenesIndex,
    key_row: int,
    rows: Sequence[int],
    key_points: Float[Tensor, "points 5"] | None = None,
    lay_out: Layout = with_lag,
) -> Float[Tensor, "all_points chan"]:
    """Points of a key sweep and of earlier ones in the key frame's sensor frame.

    Of the earlier sweeps the points on the car itself are left out; of the key frame none, as in both CenterPoint code
    bases. A scene's start has fewer points: nothing is repeated to fill up.

    Args:
        rows: Records of the earlier sweeps.
        key_points: Points of the key record, if they have been read already.
        lay_out: Makes the columns of each sweep.

    Raises:
        UserError: if a file is missing or cut off.
    """
    clouds = [lay_out(key_row, read_points(index.path(key_row)) if key_points is None else key_points, 0.0)]
    for row, key_from_sweep in zip(rows, key_from_sweeps(index, key_row, rows).float(), strict=True):
        lag = (int(index.data_timestamp_us[key_row]) - int(index.data_timestamp_us[row])) * 1e-6
        cloud = without_close_points(lay_out(row, read_points(index.path(row)), lag))
        cloud[:, :3] = transform(key_from_sweep, cloud[:, :3])
        clouds.append(cloud)
    return torch.cat(clouds)
