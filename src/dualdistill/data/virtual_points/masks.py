"""Instance masks of one image, and who may give them (docs/methods/mvp.md#mask-sources)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

PAINT_CLASSES = (
    "car",
    "truck",
    "trailer",
    "bus",
    "construction_vehicle",
    "bicycle",
    "motorcycle",
    "pedestrian",
    "traffic_cone",
    "barrier",
)
"""Order of the ten class columns of painted and virtual points: nuImages', not that of `structures.CLASSES`."""

LABEL_CHANNELS = len(PAINT_CLASSES) + 1
"""Ten classes, one of them 1, and the score."""


@dataclass(frozen=True, kw_only=True)
class ImageInstances:
    """Objects a 2D model found in one image; of two overlapping masks the first counts."""

    masks: Bool[Tensor, "instances h w"]
    """Of the stored image."""
    klass: Int[Tensor, "instances"]
    """Index into `PAINT_CLASSES`."""
    score: Float[Tensor, "instances"]
    """In (0, 1]."""

    def __len__(self) -> int:
        return len(self.klass)

    @property
    def labels(self) -> Float[Tensor, "instances 11"]:
        """Class columns and score of each instance."""
        return torch.cat([F.one_hot(self.klass, len(PAINT_CLASSES)).float(), self.score[:, None].float()], dim=1)

    @classmethod
    def none(cls, size: tuple[int, int]) -> "ImageInstances":
        """An image (height, width) in which nothing was found."""
        return cls(
            masks=torch.zeros(0, *size, dtype=torch.bool), klass=torch.zeros(0, dtype=torch.long), score=torch.zeros(0)
        )

    @classmethod
    def of(cls, masks: Bool[Tensor, "instances h w"], names: Sequence[str], score: Tensor) -> "ImageInstances":
        """Instances with class names; those with an empty mask, or of none of the ten classes, are left out."""
        known = torch.tensor([name in PAINT_CLASSES for name in names], dtype=torch.bool)
        kept = known & masks.flatten(1).any(dim=1)
        klass = [PAINT_CLASSES.index(name) for name, keep in zip(names, kept.tolist(), strict=True) if keep]
        return cls(masks=masks[kept], klass=torch.tensor(klass, dtype=torch.long), score=score[kept].float())


@runtime_checkable
class InstanceMasks(Protocol):
    """A source of instance masks for the camera images of one index."""

    @property
    def identity(self) -> str:
        """What decides its masks, such as the fingerprint of weights; kept with what is made from them."""
        ...

    def __call__(self, row: int) -> ImageInstances:
        """Instances in the image of one sensor record; none where the source has not looked at it."""
        ...
