"""Which earlier images go with a key frame (docs/methods/bevdepth.md#earlier-frame)."""

from dataclasses import dataclass

import numpy as np

from dualdistill.data.config import DataConfig
from dualdistill.data.index import NuscenesIndex
from dualdistill.structures import CAMERAS

FRONT = CAMERAS.index("CAM_FRONT")

STAND_IN_GAP = 1 / 12
"""Seconds between two frames where the current one stands in for an earlier one: a camera period."""


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
    if config.previous_frame == "key":
        return _previous_key_frame(index, sample)
    drawn = _drawn_candidates(index, sample, config)
    if drawn is None:
        return None
    first, last, candidates = drawn
    if generator is None:
        return _frame_back(index, sample, config, min(config.test_candidate, candidates - 1))
    return _frame_back(index, sample, config, int(generator.integers(first, last + 1)))


def training_frames(index: NuscenesIndex, sample: int, config: DataConfig) -> list[tuple[int, ...]]:
    """Rows of the images that a training sample may show, frame by frame, the key frame's first."""
    frames = [tuple(int(row) for row in index.sample_cameras[sample])]
    if config.num_frames == 2 and config.previous_frame == "key":
        previous = _previous_key_frame(index, sample)
        frames += [previous.cameras] if previous is not None else []
    elif config.num_frames == 2 and (drawn := _drawn_candidates(index, sample, config)) is not None:
        frames += [_frame_back(index, sample, config, number).cameras for number in range(drawn[0], drawn[1] + 1)]
    return frames


def _drawn_candidates(index: NuscenesIndex, sample: int, config: DataConfig) -> tuple[int, int, int] | None:
    """First and last candidate for the earlier frame drawn from, and how many there are; None without any."""
    front = int(index.sample_cameras[sample, FRONT])
    most = max(config.train_candidates[1], config.test_candidate) + 1
    candidates = count_candidates(index, front, config.frame_step, most)
    if not candidates:
        return None
    first, last = (min(each, candidates - 1) for each in config.train_candidates)
    return first, last, candidates


def _frame_back(index: NuscenesIndex, sample: int, config: DataConfig, candidate: int) -> EarlierFrame:
    """The earlier frame of a candidate, counted from 0."""
    front = int(index.sample_cameras[sample, FRONT])
    wanted_us = int(index.data_timestamp_us[front]) - round((candidate + 1) * config.frame_step * 1e6)
    reference = nearest_in_time(index, int(index.data_prev[front]), wanted_us)
    then_us = int(index.data_timestamp_us[reference])
    cameras = tuple(
        reference if camera == FRONT else nearest_in_time(index, int(row), then_us)
        for camera, row in enumerate(index.sample_cameras[sample])
    )
    gap = (int(index.sample_timestamp_us[sample]) - then_us) * 1e-6
    return EarlierFrame(cameras=cameras, reference=reference, gap=gap)


def _previous_key_frame(index: NuscenesIndex, sample: int) -> EarlierFrame | None:
    previous = int(index.sample_prev[sample])
    if previous < 0 or (index.sample_cameras[previous] < 0).any():
        return None
    gap = int(index.sample_timestamp_us[sample]) - int(index.sample_timestamp_us[previous])
    cameras = tuple(int(row) for row in index.sample_cameras[previous])
    return EarlierFrame(cameras=cameras, reference=int(index.sample_lidar[previous]), gap=gap * 1e-6)


def count_candidates(index: NuscenesIndex, front: int, step: float, most: int) -> int:
    """How many multiples of `step` seconds the CAM_FRONT records before `front` reach back, `most` at most.

    The released code takes every third record of a 12 Hz camera; times make the same of it there, and
    something sensible of other rates. Half a camera period is forgiven.
    """
    now_us, span, row = int(index.data_timestamp_us[front]), 0.0, front
    while span < most * step and (row := int(index.data_prev[row])) >= 0:
        span = (now_us - int(index.data_timestamp_us[row])) * 1e-6
    return min(most, int((span + STAND_IN_GAP / 2) / step))


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
