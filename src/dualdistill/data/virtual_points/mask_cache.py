"""Instance masks of key frame images, made once before training, for distillers that need them.

A file holds the instance of each pixel, and the class and score of each instance. Where two masks overlap, the first
one counts.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt16
from torch import Tensor

from dualdistill.data.config import MaskSource
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.virtual_points.files import ArrayFiles, folder_of, missing_files
from dualdistill.data.virtual_points.masks import PAINT_CLASSES, ImageInstances, InstanceMasks
from dualdistill.structures import CLASSES


@dataclass(frozen=True, kw_only=True)
class SeenObjects:
    """The instance of each pixel of a stored image."""

    owner: UInt16[np.ndarray, "h w"]
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
            owner=owner,
            klass=torch.tensor([CLASSES.index(name) for name in names], dtype=torch.long),
            score=found.score.float(),
        )


@dataclass(frozen=True, kw_only=True)
class MaskCache:
    """Masks of one root from one source, by the name of the image file in the tables."""

    files: ArrayFiles

    @classmethod
    def of(cls, index: NuscenesIndex, source: MaskSource, noise: float = 0.0) -> "MaskCache":
        """The cache of a root's masks, which may still be empty."""
        folder = folder_of("instance_masks", index, source, noise)
        return cls(files=ArrayFiles(folder=folder, what="instance masks", verb="instances"))

    def missing(self, filenames: Iterable[str]) -> list[str]:
        """The `filenames` without a file in the cache."""
        return missing_files(self.files.path, filenames)

    def read(self, filename: str) -> SeenObjects:
        """The objects of one image.

        Raises:
            UserError: for a file that is missing or broken.
        """
        arrays = self.files.read(filename)
        try:
            return SeenObjects(
                owner=arrays["owner"],
                klass=torch.from_numpy(arrays["klass"]).long(),
                score=torch.from_numpy(arrays["score"]),
            )
        except (KeyError, TypeError) as error:
            raise self.files.broken(filename, error) from error

    def write(self, filename: str, seen: SeenObjects) -> None:
        arrays = {"owner": seen.owner, "klass": seen.klass.numpy(), "score": seen.score.numpy()}
        self.files.write(filename, arrays, compressed=True)


def key_images(index: NuscenesIndex, positions: Int[np.ndarray, "samples"]) -> list[int]:
    """Rows of the camera records of key frames, ascending."""
    rows = index.sample_cameras[positions]
    return np.unique(rows[rows >= 0]).tolist()


def make_masks(
    index: NuscenesIndex,
    rows: Sequence[int],
    masks: InstanceMasks,
    cache: MaskCache,
    *,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> int:
    """Write the masks of the images without masks; returns their number. May be interrupted and called again.

    Args:
        rows: Rows of camera records, from `key_images`.
        progress: Wraps the loop over images, to show its progress.

    Raises:
        UserError: for images that cannot be read, and for a cache made from something else.
    """
    cache.files.begin({"masks": masks.identity, "class_names": list(CLASSES)})
    wanted = set(cache.missing(index.data_filename[row] for row in rows))
    todo = [row for row in rows if index.data_filename[row] in wanted]
    for row in progress(todo):
        cache.write(index.data_filename[row], SeenObjects.of(masks(row)))
    return len(todo)
