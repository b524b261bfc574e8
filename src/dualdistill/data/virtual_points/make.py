"""Painted and virtual points of every sweep of a root, made once before training."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int

from dualdistill.data.build import CHANNELS
from dualdistill.data.config import MaskSource
from dualdistill.data.index import NuscenesIndex, Progress
from dualdistill.data.sweeps import read_points, sweep_candidates
from dualdistill.data.virtual_points.complete import POINTS_PER_INSTANCE, CompletedSweep, complete_sweep, generator_of
from dualdistill.data.virtual_points.files import ArrayFiles, folder_of
from dualdistill.data.virtual_points.masks import PAINT_CLASSES, InstanceMasks
from dualdistill.data.virtual_points.official import OfficialFiles
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
        sensor = index.sample_scene[index.data_sample] * len(CHANNELS) + index.data_channel  # one a scene and channel
        order = np.lexsort((index.data_timestamp_us, sensor))
        sensors, starts = np.unique(sensor[order], return_index=True)
        self._rows = dict(zip(sensors.tolist(), np.split(order, starts[1:]), strict=True))

    def __call__(self, row: int) -> list[int]:
        """Rows of the cameras' records, in the order of `structures.CAMERAS`; -1 where there is none."""
        sample = int(self.index.data_sample[row])
        if self.index.data_is_key[row]:
            return [int(camera) for camera in self.index.sample_cameras[sample]]
        time_us = int(self.index.data_timestamp_us[row])
        scene = int(self.index.sample_scene[sample])
        return [self._nearest(scene, camera, time_us) for camera in range(len(CAMERAS))]

    def _nearest(self, scene: int, camera: int, time_us: int) -> int:
        rows = self._rows.get(scene * len(CHANNELS) + camera, np.empty(0, dtype=np.int64))
        gap = np.abs(self.index.data_timestamp_us[rows] - time_us)
        return int(rows[gap.argmin()]) if len(rows) and gap.min() <= LARGEST_GAP_US else -1


def virtual_point_files(
    index: NuscenesIndex, source: MaskSource, noise: float = 0.0
) -> ArrayFiles[CompletedSweep] | OfficialFiles:
    """Files with the painted and virtual points of a root's sweeps; there may be none yet."""
    return OfficialFiles(folder=index.root) if source == "official" else own_files(index, source, noise)


def own_files(index: NuscenesIndex, source: MaskSource, noise: float = 0.0) -> ArrayFiles[CompletedSweep]:
    """`virtual_point_files` in our own format."""
    folder = folder_of("virtual_points", index, source, noise)
    return ArrayFiles(folder=folder, kind=CompletedSweep, what="virtual points", verb="virtual-points")


def make_virtual_points(
    index: NuscenesIndex,
    rows: Sequence[int],
    masks: InstanceMasks,
    files: ArrayFiles[CompletedSweep],
    *,
    seed: int = 0,
    progress: Progress = iter,
) -> int:
    """Write the painted and virtual points of the LiDAR records without them; see `ArrayFiles.make`.

    Each file depends only on the seed, the name of the LiDAR file and its masks.

    Args:
        rows: Rows of LIDAR_TOP records, from `lidar_records`.

    Raises:
        UserError: for sensor files that cannot be read, and for files made from something else.
    """
    images = ImagesOfSweeps(index)

    def completed(row: int) -> CompletedSweep:
        cameras = [camera for camera in images(row) if camera >= 0]
        found = [(camera, instances) for camera in cameras if len(instances := masks(camera))]
        if not found:
            return CompletedSweep.none()
        at = [camera for camera, _ in found]
        camera_from_global = torch.from_numpy(np.linalg.inv(index.global_from_sensor(at)))
        return complete_sweep(
            read_points(index.path(row)),
            [instances for _, instances in found],
            camera_from_global @ torch.from_numpy(index.global_from_sensor(row)),
            torch.from_numpy(index.intrinsics(at)),
            generator_of(seed, index.data_filename[row]),
        )

    made_from = {"masks": masks.identity, "seed": seed, "points_per_instance": POINTS_PER_INSTANCE}
    return files.make(index, rows, completed, made_from | {"class_names": list(PAINT_CLASSES)}, progress)
