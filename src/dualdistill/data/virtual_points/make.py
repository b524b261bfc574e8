"""Painted and virtual points of every sweep of a root, made once before training."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Int

from dualdistill.data.index import NuscenesIndex
from dualdistill.data.sweeps import read_points, sweep_candidates
from dualdistill.data.virtual_points.cache import VirtualPointsCache
from dualdistill.data.virtual_points.complete import (
    POINTS_PER_INSTANCE,
    CompletedSweep,
    complete_sweep,
    generator_of,
)
from dualdistill.data.virtual_points.masks import PAINT_CLASSES, InstanceMasks
from dualdistill.structures import CAMERAS

LARGEST_GAP_US = 50_000
"""Largest time between a sweep and an image that is used for it, microseconds. A 12 Hz camera is never farther than
42 ms from any sweep; the original has no limit."""


def lidar_records(index: NuscenesIndex, positions: Int[np.ndarray, "samples"], num_sweeps: int) -> list[int]:
    """Rows of every LiDAR record that samples with `num_sweeps` accumulated sweeps may need, ascending."""
    rows: set[int] = set()
    for key in index.sample_lidar[positions].tolist():
        if key >= 0:
            rows |= {key, *sweep_candidates(index, key, num_sweeps)}
    return sorted(rows)


class ImagesOfSweeps:
    """The camera images for a LiDAR record (docs/methods/mvp.md#projection).

    A key frame has its own images; other sweeps have each camera's nearest in time within the scene, up to
    `LARGEST_GAP_US`. The original searches the six frames before the key frame's, with the same result.
    """

    def __init__(self, index: NuscenesIndex):
        self.index = index
        scene = index.sample_scene[index.data_sample]
        order = np.lexsort((index.data_timestamp_us, index.data_channel, scene))
        groups = np.stack([scene[order], index.data_channel[order]], axis=1)
        starts = np.flatnonzero(np.r_[True, (groups[1:] != groups[:-1]).any(axis=1)])
        self._rows = {
            (int(groups[start][0]), int(groups[start][1])): part
            for start, part in zip(starts, np.split(order, starts[1:]), strict=True)
        }

    def __call__(self, row: int) -> list[int]:
        """Rows of the cameras' records, in the order of `structures.CAMERAS`; -1 where there is none."""
        sample = int(self.index.data_sample[row])
        if self.index.data_is_key[row]:
            return [int(camera) for camera in self.index.sample_cameras[sample]]
        time_us = int(self.index.data_timestamp_us[row])
        scene = int(self.index.sample_scene[sample])
        return [self._nearest(scene, camera, time_us) for camera in range(len(CAMERAS))]

    def _nearest(self, scene: int, camera: int, time_us: int) -> int:
        rows = self._rows.get((scene, camera), np.empty(0, dtype=np.int64))
        gap = np.abs(self.index.data_timestamp_us[rows] - time_us)
        return int(rows[gap.argmin()]) if len(rows) and gap.min() <= LARGEST_GAP_US else -1


def make_virtual_points(
    index: NuscenesIndex,
    rows: Sequence[int],
    masks: InstanceMasks,
    cache: VirtualPointsCache,
    *,
    seed: int = 0,
    points_per_instance: int = POINTS_PER_INSTANCE,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> int:
    """Write the painted and virtual points of the LiDAR records without them; returns their number.

    May be interrupted and called again. Each file depends only on the seed, the name of the LiDAR file and its masks.

    Args:
        rows: Rows of LIDAR_TOP records, from `lidar_records`.
        progress: Wraps the loop over records, to show its progress.

    Raises:
        UserError: for sensor files that cannot be read, and for a cache made from something else.
    """
    cache.begin(
        {
            "masks": masks.identity,
            "seed": seed,
            "points_per_instance": points_per_instance,
            "class_names": list(PAINT_CLASSES),
        }
    )
    images = ImagesOfSweeps(index)
    wanted = set(cache.missing(index.data_filename[row] for row in rows))
    todo = [row for row in rows if index.data_filename[row] in wanted]
    for row in progress(todo):
        filename = index.data_filename[row]
        cameras = [camera for camera in images(row) if camera >= 0]
        found = [(camera, instances) for camera in cameras if len(instances := masks(camera))]
        if not found:
            cache.write(filename, CompletedSweep.none())
            continue
        at = [camera for camera, _ in found]
        camera_from_global = torch.from_numpy(np.linalg.inv(index.global_from_sensor(at)))
        completed = complete_sweep(
            read_points(index.path(row)),
            [instances for _, instances in found],
            camera_from_global @ torch.from_numpy(index.global_from_sensor(row)),
            torch.from_numpy(index.intrinsics(at)),
            generator_of(seed, filename),
            points_per_instance,
        )
        cache.write(filename, completed)
    return len(todo)
