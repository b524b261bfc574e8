"""Painted and virtual points of LiDAR sweeps, made once before training (docs/methods/mvp.md#painting).

Source: MVP, Yin et al., NeurIPS 2021. Each instance mask paints the LiDAR points that project into it, and lifts pixels
drawn from it to the depth of the nearest such point. Occlusion is ignored: a background point that projects into the
mask contributes its depth too.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dualdistill.data.index import NuscenesIndex, Progress
from dualdistill.data.sweeps import nearest_in_time, read_points, sweep_candidates
from dualdistill.data.virtual_points.files import ArrayFiles
from dualdistill.data.virtual_points.masks import LABEL_CHANNELS, PAINT_CLASSES, ImageInstances, InstanceMasks
from dualdistill.geometry.cameras import project
from dualdistill.geometry.transforms import transform

POINTS_PER_INSTANCE = 50

LARGEST_GAP_US = 50_000
"""Largest time between a sweep and an image that is used for it, microseconds. A 12 Hz camera is never farther than
42 ms from any sweep; the original has no limit."""

VIRTUAL_CHANNELS = 3 + LABEL_CHANNELS
PAINTED_CHANNELS = 4 + LABEL_CHANNELS
CACHE_NAMES = ("virtual_points", "real_points", "real_points_indice")
"""Names of the arrays of `CompletedSweep` in MVP's cache, in its order."""


@dataclass(frozen=True, kw_only=True)
class CompletedSweep:
    """Painted and virtual points of a sweep in its sensor frame: the content of one file of MVP's cache."""

    virtual: Float[Tensor, "virtual 14"]
    """x, y, z (metres), ten classes in the order of `PAINT_CLASSES`, score."""
    painted: Float[Tensor, "painted 15"]
    """x, y, z (metres), intensity, ten classes (several where two cameras disagree), the larger score."""
    painted_rows: Int[Tensor, "painted"]
    """Row of each painted point in the LiDAR file."""

    @classmethod
    def none(cls) -> "CompletedSweep":
        return cls(
            virtual=torch.zeros(0, VIRTUAL_CHANNELS),
            painted=torch.zeros(0, PAINTED_CHANNELS),
            painted_rows=torch.zeros(0, dtype=torch.long),
        )


def generator_of(seed: int, filename: str) -> np.random.Generator:
    """A generator determined by a seed and the name of a sensor file in the tables."""
    digest = hashlib.sha256(filename.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def complete_sweep(
    points: Float[Tensor, "points chan"],
    instances: Sequence[ImageInstances],
    camera_from_lidar: Float[Tensor, "cam 4 4"],
    intrinsics: Float[Tensor, "cam 3 3"],
    generator: np.random.Generator,
) -> CompletedSweep:
    """Painted and virtual points of a sweep.

    Args:
        points: x, y, z (metres), intensity, and any further columns.
        instances: One record per camera.
        camera_from_lidar: Through the global frame, so that ego motion between the exposures is included.
        intrinsics: Intrinsics of the stored images, pixels.
        generator: Draws the pixels that become virtual points.
    """
    xyz = points[:, :3].double().expand(len(camera_from_lidar), -1, -1)
    pixels = project(transform(camera_from_lidar.double(), xyz), intrinsics.double())  # cam points 3
    labels = points.new_zeros(len(points), LABEL_CHANNELS)
    is_painted = torch.zeros(len(points), dtype=torch.bool)
    virtual = [CompletedSweep.none().virtual]
    for camera, found in enumerate(instances):
        seen, owner = first_owners(pixels[camera], found)
        is_painted[seen] = True
        labels[seen] = torch.maximum(labels[seen], found.labels[owner])
        drawn, depth, of = lifted_pixels(pixels[camera, seen], owner, found, generator)
        rays = torch.cat([drawn, torch.ones_like(drawn[:, :1])], dim=1)
        in_camera = depth[:, None] * (rays @ torch.linalg.inv(intrinsics[camera].double()).mT)
        in_lidar = transform(torch.linalg.inv(camera_from_lidar[camera].double()), in_camera)
        virtual.append(torch.cat([in_lidar.float(), found.labels[of]], dim=1))
    return CompletedSweep(
        virtual=torch.cat(virtual),
        painted=torch.cat([points[is_painted, :4], labels[is_painted]], dim=1),
        painted_rows=is_painted.nonzero().squeeze(1),
    )


def first_owners(
    pixels: Float[Tensor, "points 3"], found: ImageInstances
) -> tuple[Int[Tensor, "seen"], Int[Tensor, "seen"]]:
    """Rows of the points (u, v, depth) inside a mask, and the first mask that contains each.

    Coordinates are floored; column 0 and row 0 of the image count as outside, as in the original.
    """
    height, width = found.masks.shape[1:]
    column, row = pixels[:, 0].floor(), pixels[:, 1].floor()
    valid = (pixels[:, 2] > 0) & (column > 0) & (column < width) & (row > 0) & (row < height)
    seen = valid.nonzero().squeeze(1)
    if not len(found):
        return seen[:0], seen[:0]
    member = found.masks[:, row[seen].long(), column[seen].long()]  # instances seen
    owned = member.any(dim=0)
    return seen[owned], member[:, owned].int().argmax(dim=0)


def lifted_pixels(
    pixels: Float[Tensor, "seen 3"],
    owner: Int[Tensor, "seen"],
    found: ImageInstances,
    generator: np.random.Generator,
) -> tuple[Float[Tensor, "virtual 2"], Float[Tensor, "virtual"], Int[Tensor, "virtual"]]:
    """Pixels drawn from each mask that contains a point, the depth of its nearest point, and the mask of each.

    `POINTS_PER_INSTANCE` are drawn without replacement; of a smaller mask all are taken, and the first is
    repeated. Distances are between whole pixels and unlimited: one point is enough for a mask.
    """
    drawn, depth = [pixels.new_zeros(0, 2)], [pixels.new_zeros(0)]
    owning, count = owner.unique(), POINTS_PER_INSTANCE
    for instance in owning.tolist():
        own = pixels[owner == instance]
        places = found.masks[instance].nonzero().flip(1)  # column, row
        order = generator.permutation(len(places))[:count]
        chosen = np.concatenate([order, np.repeat(order[:1], count - len(order))])
        places = places[torch.from_numpy(chosen)].to(pixels.dtype)
        distance = (places[:, None] - own[None, :, :2].floor()).square().sum(dim=2)
        drawn.append(places)
        depth.append(own[distance.argmin(dim=1), 2])
    return torch.cat(drawn), torch.cat(depth), owning.repeat_interleave(count)


def lidar_records(index: NuscenesIndex, positions: Int[np.ndarray, "samples"], num_sweeps: int) -> list[int]:
    """Rows of every LiDAR record that samples with `num_sweeps` accumulated sweeps may need, ascending."""
    rows: set[int] = set()
    for key in index.sample_lidar[positions].tolist():
        if key >= 0:
            rows |= {key, *sweep_candidates(index, key, num_sweeps)}
    return sorted(rows)


def images_of_sweep(index: NuscenesIndex, row: int) -> list[int]:
    """Rows of the camera images for a LiDAR record, in the order of `structures.CAMERAS`; -1 where there is none
    (docs/methods/mvp.md#projection).

    A key frame has its own images; other sweeps have each camera's nearest in time, up to `LARGEST_GAP_US`: of those
    up to the key frame that the sweep leads to, as in the original.
    """
    of_key_frame = index.sample_cameras[index.data_sample[row]].tolist()
    if index.data_is_key[row]:
        return of_key_frame
    time_us = int(index.data_timestamp_us[row])
    nearest = [camera if camera < 0 else nearest_in_time(index, camera, time_us) for camera in of_key_frame]
    gap_us = np.abs(index.data_timestamp_us[nearest] - time_us)
    return np.where(gap_us <= LARGEST_GAP_US, nearest, -1).tolist()


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

    def completed(row: int) -> CompletedSweep:
        cameras = [camera for camera in images_of_sweep(index, row) if camera >= 0]
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
