"""Instance masks of key frame images, made once before training, for distillers that need them.

A file holds the instance of each pixel, and the class and score of each instance. Where two masks overlap, the first
one counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt16
from torch import Tensor

from dualdistill.data.config import MaskSource
from dualdistill.data.index import NuscenesIndex, Progress
from dualdistill.data.virtual_points.files import ArrayFiles, folder_of
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

    def arrays(self) -> dict[str, np.ndarray]:
        return {"owner": self.owner, "klass": self.klass.numpy(), "score": self.score.numpy()}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "SeenObjects":
        klass, score = torch.from_numpy(arrays["klass"]).long(), torch.from_numpy(arrays["score"])
        return cls(owner=arrays["owner"], klass=klass, score=score)


def mask_files(index: NuscenesIndex, source: MaskSource, noise: float = 0.0) -> ArrayFiles[SeenObjects]:
    """Files with the instance masks of a root's images; there may be none yet."""
    folder = folder_of("instance_masks", index, source, noise)
    return ArrayFiles(folder=folder, kind=SeenObjects, what="instance masks", verb="instances", compressed=True)


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
