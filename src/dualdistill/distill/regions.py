"""Which cells a feature loss looks at, and how hard: objects, the teacher's false positives, the rest.

Spec dualdistill 3.1. Nothing here has a gradient.

Differs from the released code in the test point of a cell: its centre, where the released code takes the
lower corner and so shifts every mask by half a cell (spec dualdistill 9.6). `test_point="corner"` is the
released one; tests/parity holds both.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from dualdistill.geometry.boxes import owner_of_cells
from dualdistill.geometry.grid import BevGrid
from dualdistill.structures import Boxes

TestPoint = Literal["center", "corner"]

PROBABILITY_FLOOR = 1e-4
"""Probabilities of a heat map are clamped to [this, 1 - this]."""


@dataclass(frozen=True, kw_only=True)
class Foreground:
    """The cells of annotated objects."""

    mask: Bool[Tensor, "batch 1 y x"]
    """Cells whose test point lies in the footprint of a box."""
    scale: Float[Tensor, "batch 1 y x"]
    """1 / sqrt(area of the box in cells), so that an object's total weight grows like the root of its area;
    not clipped: above 1 for boxes smaller than a cell. 0 elsewhere."""


@torch.no_grad()
def foreground(boxes: tuple[Boxes, ...], grid: BevGrid, test_point: TestPoint = "center") -> Foreground:
    """Cells of the boxes of each sample; of several boxes over one cell, the first in the list owns it."""
    masks, scales = [], []
    for sample in boxes:
        owner = owner_of_cells(grid, sample, test_point)  # y x
        area = sample.size[:, 0] * sample.size[:, 1]
        scale_of_box = F.pad(grid.cell / area.float().sqrt(), (0, 1))  # owner -1, nobody, reads the 0 at the end
        masks.append(owner >= 0)
        scales.append(scale_of_box[owner])
    return Foreground(mask=torch.stack(masks)[:, None], scale=torch.stack(scales)[:, None])


@torch.no_grad()
def false_positives(
    heatmap: Float[Tensor, "batch klass _ _"],
    teacher_logits: Float[Tensor, "batch klass _ _"],
    foreground: Bool[Tensor, "batch 1 y x"],
    *,
    truth_threshold: float = 0.1,
    teacher_threshold: float = 0.1,
) -> Bool[Tensor, "batch 1 y x"]:
    """Cells where the teacher sees an object, whatever class, and the annotations have none.

    Args:
        heatmap: Training targets, in [0, 1].
    """
    probability = teacher_logits.sigmoid().clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    truth, seen = (_strongest(m, foreground.shape[-2:]) for m in (heatmap, probability))
    return (truth < truth_threshold) & (seen > teacher_threshold) & ~foreground


def _strongest(heatmap: Float[Tensor, "batch klass _ _"], size: torch.Size) -> Float[Tensor, "batch 1 y x"]:
    """Largest value of any class, on a map of another size: pooled by maximum, or repeated."""
    strongest = heatmap.amax(dim=1, keepdim=True)
    if strongest.shape[-1] > size[-1]:
        return F.adaptive_max_pool2d(strongest, list(size))
    return F.interpolate(strongest, list(size)) if strongest.shape[-2:] != size else strongest


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Three disjoint regions that cover the map, as the weight each of their cells carries (0 outside a
    region)."""

    foreground: Float[Tensor, "batch 1 y x"]
    background: Float[Tensor, "batch 1 y x"]
    """Sums to 1 over the map."""
    false_positive: Float[Tensor, "batch 1 y x"]
    """Sums to 1 over the map, to 0 where there are none."""


@torch.no_grad()
def split_regions(foreground: Foreground, false_positive: Bool[Tensor, "batch 1 y x"] | None = None) -> Regions:
    """The weights of spec dualdistill 3.1: M_fg S, M_tn S and M_fp / N_fp, where S = max(scale, 1 / N_tn).

    Args:
        false_positive: None for none; must not overlap the foreground.
    """
    if false_positive is None:
        false_positive = torch.zeros_like(foreground.mask)
    background = ~(foreground.mask | false_positive)
    share = _one_over_count(background)
    return Regions(
        foreground=torch.maximum(foreground.scale, share) * foreground.mask,
        background=share * background,
        false_positive=_one_over_count(false_positive) * false_positive,
    )


def _one_over_count(mask: Bool[Tensor, "batch 1 y x"]) -> Float[Tensor, "batch 1 1 1"]:
    """What each cell of the mask counts for when all together count for 1; 0 for an empty mask."""
    count = mask.sum(dim=(2, 3), keepdim=True)
    return torch.where(count > 0, 1 / count.clamp(min=1), 0.0)
