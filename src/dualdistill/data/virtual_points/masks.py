"""Instance masks of one image, and the interface of their sources (docs/methods/mvp.md#mask-sources)."""

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
    """Objects found by a 2D model in one image; where masks overlap, the first one counts."""

    masks: Bool[Tensor, "instances h w"]
    """One mask per instance, at the size of the stored image."""
    klass: Int[Tensor, "instances"]
    """Index into `PAINT_CLASSES`."""
    score: Float[Tensor, "instances"]
    """Scores in (0, 1]."""

    def __len__(self) -> int:
        return len(self.klass)

    @property
    def labels(self) -> Float[Tensor, "instances 11"]:
        """Class columns and score of each instance."""
        return torch.cat([F.one_hot(self.klass, len(PAINT_CLASSES)).float(), self.score[:, None].float()], dim=1)

    @classmethod
    def none(cls, size: tuple[int, int]) -> "ImageInstances":
        """No instances, for an image of size (height, width)."""
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
        """Description that determines the masks, such as the hash of weights; stored with the files made from them."""
        ...

    def __call__(self, row: int) -> ImageInstances:
        """Instances in the image of one sensor record; none for images that the source does not cover."""
        ...
