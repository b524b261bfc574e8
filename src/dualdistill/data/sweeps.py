"""Records that go with a key frame: earlier LiDAR sweeps, gathered in its frame (docs/methods/centerpoint.md#sweeps),
and earlier images (docs/methods/bevdepth.md#earlier-frame)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dualdistill.data.config import DataConfig
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.plausible import VALUES_PER_POINT, broken_points
from dualdistill.errors import UserError
from dualdistill.files import read_bytes
from dualdistill.geometry.transforms import transform
from dualdistill.structures import CAMERAS

CLOSE = 1.0
"""Points of earlier sweeps with |x| and |y| below this many metres are returns from the car itself."""

FRONT = CAMERAS.index("CAM_FRONT")

STAND_IN_GAP = 1 / 12
"""Seconds between two frames where the current one stands in for an earlier one: a camera period."""


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


@dataclass(frozen=True, kw_only=True)
class EarlierFrame:
    """Six images taken before the key frame."""

    cameras: tuple[int, ...]
    """Rows in sensor data, in the order of `structures.CAMERAS`."""
    reference: int
    """Row whose ego pose stands for the frame as a whole."""
    gap: float
    """Seconds before the key frame."""


def earlier_frame(
    index: NuscenesIndex, sample: int, config: DataConfig, generator: np.random.Generator | None
) -> EarlierFrame | None:
    """The earlier frame of a sample; None where its scene has none.

    Args:
        generator: None at test time: the configured candidate, no draw.
    """
    candidates = _candidates(index, sample, config, training=generator is not None)
    if not candidates:
        return None
    drawn = 0 if generator is None else int(generator.integers(len(candidates)))
    return _frame_back(index, sample, config, candidates[drawn])


def training_frames(index: NuscenesIndex, sample: int, config: DataConfig) -> list[tuple[int, ...]]:
    """Rows of the images that a training sample may show, frame by frame, the key frame's first."""
    candidates = _candidates(index, sample, config, training=True) if config.num_frames == 2 else []
    earlier = [_frame_back(index, sample, config, candidate).cameras for candidate in candidates]
    return [tuple(int(row) for row in index.sample_cameras[sample]), *earlier]


def _candidates(index: NuscenesIndex, sample: int, config: DataConfig, *, training: bool) -> Sequence[int]:
    """Numbers of the candidates that the earlier frame is drawn from; none where the scene has none.

    The released code takes every third record of a 12 Hz camera; times make the same of it there, and something
    sensible of other rates. Half a camera period is forgiven.
    """
    if config.previous_frame == "key":
        previous = int(index.sample_prev[sample])
        return range(0 if previous < 0 or (index.sample_cameras[previous] < 0).any() else 1)
    row, span, step = int(index.sample_cameras[sample, FRONT]), 0.0, config.frame_step
    now_us, most = int(index.data_timestamp_us[row]), max(config.train_candidates[1], config.test_candidate) + 1
    while span < most * step and (row := int(index.data_prev[row])) >= 0:
        span = (now_us - int(index.data_timestamp_us[row])) * 1e-6
    count = min(most, int((span + STAND_IN_GAP / 2) / step))
    first, last = config.train_candidates if training else (config.test_candidate,) * 2
    return range(min(first, count - 1), min(last, count - 1) + 1) if count else range(0)


def _frame_back(index: NuscenesIndex, sample: int, config: DataConfig, candidate: int) -> EarlierFrame:
    """The earlier frame of a candidate, counted from 0."""
    if config.previous_frame == "key":
        previous = int(index.sample_prev[sample])
        cameras, reference = index.sample_cameras[previous].tolist(), int(index.sample_lidar[previous])
        then_us = int(index.sample_timestamp_us[previous])
    else:
        rows = index.sample_cameras[sample].tolist()
        wanted_us = int(index.data_timestamp_us[rows[FRONT]]) - round((candidate + 1) * config.frame_step * 1e6)
        reference = nearest_in_time(index, int(index.data_prev[rows[FRONT]]), wanted_us)
        then_us = int(index.data_timestamp_us[reference])
        cameras = [nearest_in_time(index, row, then_us) for row in rows]
        cameras[FRONT] = reference
    gap = (int(index.sample_timestamp_us[sample]) - then_us) * 1e-6
    return EarlierFrame(cameras=tuple(cameras), reference=reference, gap=gap)


def nearest_in_time(index: NuscenesIndex, row: int, wanted_us: int) -> int:
    """The record nearest to a time, of those from `row` back along its chain."""
    while (before := int(index.data_prev[row])) >= 0:
        here = abs(int(index.data_timestamp_us[row]) - wanted_us)
        if abs(int(index.data_timestamp_us[before]) - wanted_us) > here:
            break
        row = before
    return row


def reachable_records(index: NuscenesIndex, sample: int, camera: int, config: DataConfig) -> list[int]:
    """Records of one camera that a sample may show: the key frame's, and those it draws from."""
    key = int(index.sample_cameras[sample, camera])
    if key < 0:
        return []
    if config.num_frames == 1:
        return [key]
    if config.previous_frame == "key":
        previous = int(index.sample_prev[sample])
        row = int(index.sample_cameras[previous, camera]) if previous >= 0 else -1
        return [key] if row < 0 else [key, row]
    most = max(config.train_candidates[1], config.test_candidate) + 1
    farthest_us = int(index.data_timestamp_us[key]) - round(most * config.frame_step * 1e6)
    rows, row = [key], key
    # One record beyond the farthest candidate may still be the nearest to it.
    while index.data_timestamp_us[row] > farthest_us and (row := int(index.data_prev[row])) >= 0:
        rows.append(row)
    return rows
