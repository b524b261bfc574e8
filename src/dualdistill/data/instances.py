"""Instance masks of key frame images, made once before training, and the maps of a sample made of them, in the cells of
its image features (docs/methods/x3kd.md#instance-targets).

A file of masks holds the instance of each pixel, and the class and score of each instance; where two masks overlap, the
first one counts. Masks are augmented with their image, by nearest neighbour; an instance of which little is left is
dropped, and its cells are background. The boxes of the description are left out: the head (`distill.x3kd`)
predicts none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt16
from PIL import Image
from torch import Tensor

from dualdistill.data.augment import ImageView
from dualdistill.data.config import InstancesConfig, MaskSource
from dualdistill.data.index import NuscenesIndex, Progress
from dualdistill.data.virtual_points.files import ArrayFiles, folder_of, mask_options
from dualdistill.data.virtual_points.masks import PAINT_CLASSES, ImageInstances, InstanceMasks
from dualdistill.errors import UserError
from dualdistill.structures import CLASSES, InstanceMap

MIN_PIXELS = 16
"""Instances of which the augmented image shows fewer are dropped (docs/methods/x3kd.md#instance-targets)."""
MIN_SHARE = 0.25
"""A cell belongs to the instance that fills most of it, if that is at least this much: people far away are narrower
than a cell, and half a cell would lose most of those that two cells share."""


@dataclass(frozen=True, kw_only=True)
class SeenObjects:
    """The instance of each pixel of a stored image."""

    owner: UInt16[Tensor, "h w"]
    """Number of the instance, counted from 1; 0 is background."""
    klass: Int[Tensor, "instances"]
    """Index into `structures.CLASSES`."""
    score: Float[Tensor, "instances"]

    @classmethod
    def of(cls, found: ImageInstances) -> "SeenObjects":
        owner = np.zeros(found.masks.shape[1:], dtype=np.uint16)
        for number in reversed(range(len(found))):  # the first is painted last
            owner[found.masks[number].numpy()] = number + 1
        names = [PAINT_CLASSES[klass] for klass in found.klass.tolist()]
        return cls(
            owner=torch.from_numpy(owner),
            klass=torch.tensor([CLASSES.index(name) for name in names], dtype=torch.long),
            score=found.score.float(),
        )


def mask_files(index: NuscenesIndex, source: MaskSource, noise: float = 0.0) -> ArrayFiles[SeenObjects]:
    """Files with the instance masks of a root's images; there may be none yet."""
    folder = folder_of("instance_masks", index, source, noise)
    names = ("owner", "klass", "score")
    return ArrayFiles(
        folder=folder, kind=SeenObjects, names=names, what="instance masks", verb="instances", compressed=True
    )


def key_images(index: NuscenesIndex, positions: Int[np.ndarray, "samples"]) -> list[int]:
    """Rows of the camera records of key frames, ascending."""
    rows = index.sample_cameras[positions]
    return np.unique(rows[rows >= 0]).tolist()


def make_masks(
    index: NuscenesIndex,
    rows: Sequence[int],
    masks: InstanceMasks,
    files: ArrayFiles[SeenObjects],
    *,
    progress: Progress = iter,
) -> int:
    """Write the masks of the images without masks; see `ArrayFiles.make`.

    Args:
        rows: Rows of camera records, from `key_images`.

    Raises:
        UserError: for images that cannot be read, and for files made from something else.
    """
    made_from = {"masks": masks.identity, "class_names": list(CLASSES)}
    return files.make(index, rows, lambda row: SeenObjects.of(masks(row)), made_from, progress)


class InstanceTargets:
    """Instance maps of the key frame's images of samples, from cached masks."""

    def __init__(
        self, index: NuscenesIndex, config: InstancesConfig, positions: Int[np.ndarray, "samples"], stride: int
    ):
        """
        Args:
            positions: Samples whose maps will be made.
            stride: Pixels of the network image per cell.

        Raises:
            UserError: if one of their images has no cached masks.
        """
        self.index, self.config, self.stride = index, config, stride
        self.files = mask_files(index, config.masks, config.noise)
        missing, count = missing_masks(index, config, positions)
        if missing:
            raise UserError(
                f"{len(missing)} of {count} key frame images have no instance masks, such as "
                f"{self.files.path(missing[0])}: run `{making_masks(index, config)}`"
            )

    def __call__(self, position: int, views: Sequence[ImageView]) -> InstanceMap:
        """Instance map of one sample, in the image views given.

        Raises:
            UserError: for a file that is missing or broken.
        """
        maps = [self._map(int(row), view) for row, view in zip(self.index.sample_cameras[position], views, strict=True)]
        klass, instance = (torch.stack(each) for each in zip(*maps, strict=True))
        return InstanceMap(klass=klass[None], instance=instance[None])

    def _map(self, row: int, view: ImageView) -> tuple[Int[Tensor, "h w"], Int[Tensor, "h w"]]:
        seen = self.files.read(self.index.data_filename[row])
        owner = owners_in_view(seen, view, self.config.min_score)
        cells = owners_of_cells(owner, len(seen.klass), self.stride)
        if not len(seen.klass):
            return cells - 1, cells
        number = (cells - 1).clamp(min=0)
        return torch.where(cells == 0, -1, seen.klass[number]), number


def missing_masks(
    index: NuscenesIndex, config: InstancesConfig, positions: Int[np.ndarray, "samples"]
) -> tuple[list[str], int]:
    """Key frame images of samples that have no cached masks, and how many images there are."""
    images = [index.data_filename[row] for row in key_images(index, positions)]
    return mask_files(index, config.masks, config.noise).missing(images), len(images)


def making_masks(index: NuscenesIndex, config: InstancesConfig) -> str:
    """The command that makes the masks."""
    return f"dualdistill data instances {index.root} {mask_options(config)}"


def owners_in_view(seen: SeenObjects, view: ImageView, min_score: float = 0.0) -> Int[Tensor, "h w"]:
    """Instance of each pixel of the augmented image, counted from 1; 0 = none of this score and of `MIN_PIXELS`."""
    image_from_crop = torch.linalg.inv(replace(view, rotate_deg=0.0).matrix().double())
    affine = torch.cat([image_from_crop[:2, :2], image_from_crop[:2, 3:]], dim=1).flatten().tolist()
    count = len(seen.klass) + 1
    stored = Image.fromarray(seen.owner.numpy().astype(np.uint8 if count <= 256 else np.int32))  # bytes are much faster
    crop = stored.transform(view.size[::-1], Image.Transform.AFFINE, affine, Image.Resampling.NEAREST)
    # The rotation turns the crop, and brings in nothing from beyond it.
    owner = np.array(crop.rotate(view.rotate_deg) if view.rotate_deg else crop)
    kept = np.bincount(owner.ravel(), minlength=count) >= MIN_PIXELS
    kept[1:] &= seen.score.numpy() >= min_score
    number = np.where(kept, np.arange(count), 0)
    return torch.from_numpy(number[owner])


def owners_of_cells(owner: Int[Tensor, "h w"], instances: int, stride: int) -> Int[Tensor, "rows columns"]:
    """The instance that fills most of each cell of `stride` x `stride` pixels, at least `MIN_SHARE` of it; else 0. Of
    two that fill as much of it, the first.

    Args:
        owner: Numbers from 1 to `instances`; 0 = none.
    """
    rows, columns = owner.shape[0] // stride, owner.shape[1] // stride
    if not instances:
        return owner.new_zeros(rows, columns)
    first = (instances + 1) * torch.arange(rows * columns).view(rows, 1, columns, 1)
    numbers = first + owner.view(rows, stride, columns, stride)
    count = numbers.flatten().bincount(minlength=rows * columns * (instances + 1))
    most, which = count.view(rows, columns, instances + 1)[..., 1:].max(dim=-1)
    return torch.where(most >= MIN_SHARE * stride**2, which + 1, 0)
