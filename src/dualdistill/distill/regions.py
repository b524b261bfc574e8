"""Regions of a feature loss and their weights: objects, the teacher's false positives, the rest.

Source: docs/methods/dualdistill.md#foreground-mask and docs/methods/dualdistill.md#false-positives. Nothing here has a
gradient.

Differs from the released code in the test point of a cell: its centre, where the released code takes the lower corner
and so shifts every mask by half a cell (docs/methods/dualdistill.md#foreground-mask). `test_point="corner"` is the
released one; tests/parity holds both.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from dualdistill.geometry.boxes import footprints
from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.focal import probability
from dualdistill.ops.integers import constant
from dualdistill.structures import Boxes

TestPoint = Literal["center", "corner"]


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
    """Cells of the boxes of each sample; of several boxes over one cell, the first in the list counts."""
    index = box_indices_of_batch(boxes, grid, test_point)[:, None]
    size = torch.cat([sample.size for sample in boxes])
    scale_of_box = F.pad(grid.cell / (size[:, 0] * size[:, 1]).float().sqrt(), (0, 1))  # -1, no box, selects the 0
    return Foreground(mask=index >= 0, scale=scale_of_box[index])


def box_indices_of_batch(
    boxes: tuple[Boxes, ...], grid: BevGrid, test_point: TestPoint = "center"
) -> Int[Tensor, "batch y x"]:
    """The first box over each cell, counted through the boxes of all samples; -1 for none. Only the cells about each
    box are tested."""
    rectangles = torch.cat([footprints(sample) for sample in boxes]).double()
    device, count, (height, width) = rectangles.device, len(rectangles), grid.shape
    index = torch.full((len(boxes) * height * width + 1,), count, device=device)
    if count:
        counts = constant([len(sample) for sample in boxes], device)
        sample = torch.repeat_interleave(torch.arange(len(boxes), device=device), counts, output_size=count)
        center, size, yaw = rectangles[:, None, :2], rectangles[:, 2:4, None, None], rectangles[:, 4, None, None]
        # One more for the cell that the centre is rounded down to.
        reach = int((rectangles[:, 2:4].norm(dim=1).max() / 2 / grid.cell).ceil()) + 1
        offset = torch.arange(-reach, reach + 1, device=device)[:, None]
        low = constant([grid.x_min, grid.y_min], device, torch.double)
        cell = ((center - low) / grid.cell).floor().long() + offset  # boxes window 2, column and row
        on_map = (cell >= 0) & (cell < constant([width, height], device))
        dx, dy = (low + (cell + (0.5 if test_point == "center" else 0.0)) * grid.cell - center).unbind(dim=2)
        dx, dy = dx[:, None, :], dy[:, :, None]
        inside = on_map[:, None, :, 0] & on_map[:, :, None, 1]  # boxes row column
        inside &= (dx * yaw.cos() + dy * yaw.sin()).abs() <= size[:, 0] / 2
        inside &= (dy * yaw.cos() - dx * yaw.sin()).abs() <= size[:, 1] / 2
        place = (sample[:, None, None] * height + cell[:, :, None, 1]) * width + cell[:, None, :, 0]
        place = torch.where(inside, place, len(index) - 1)
        claim = torch.arange(count, device=device)[:, None, None].expand_as(place)
        index = index.scatter_reduce(0, place.flatten(), claim.flatten(), "amin")  # the first box wins
    index = index[:-1].view(len(boxes), height, width)
    return torch.where(index == count, -1, index)


@torch.no_grad()
def false_positives(
    heatmap: Float[Tensor, "batch klass _ _"],
    teacher_logits: Float[Tensor, "batch klass _ _"],
    foreground: Bool[Tensor, "batch 1 y x"],
    *,
    truth_threshold: float = 0.1,
    teacher_threshold: float = 0.1,
) -> Bool[Tensor, "batch 1 y x"]:
    """Cells where the teacher predicts an object, whatever class, and the annotations have none. `heatmap`: training
    targets, in [0, 1]."""
    maps = heatmap, probability(teacher_logits)
    truth, seen = (_strongest(m, foreground.shape[-2:]) for m in maps)
    return (truth < truth_threshold) & (seen > teacher_threshold) & ~foreground


def _strongest(heatmap: Float[Tensor, "batch klass _ _"], size: torch.Size) -> Float[Tensor, "batch 1 y x"]:
    """Largest value of any class, on a map of another size: pooled by maximum, or repeated."""
    strongest = heatmap.amax(dim=1, keepdim=True)
    if strongest.shape[-1] > size[-1]:
        return F.adaptive_max_pool2d(strongest, list(size))
    return F.interpolate(strongest, list(size)) if strongest.shape[-2:] != size else strongest


@torch.no_grad()
def split_regions(
    foreground: Foreground, false_positive: Bool[Tensor, "batch 1 y x"] | None = None
) -> dict[str, Float[Tensor, "batch 1 y x"]]:
    """Weight of each cell in disjoint regions that cover the map, 0 outside a region: "foreground", "background" (sums
    to 1) and, unless its mask is None, "false_positive" (sums to 1, to 0 where there are none).

    As in docs/methods/dualdistill.md#region-weights: M_fg S, M_tn S and M_fp / N_fp, where S = max(scale, 1 / N_tn).
    `false_positive` must not overlap the foreground.
    """
    background = ~foreground.mask if false_positive is None else ~(foreground.mask | false_positive)
    share = _one_over_count(background)
    weights = {"foreground": torch.maximum(foreground.scale, share) * foreground.mask, "background": share * background}
    if false_positive is not None:
        weights["false_positive"] = _one_over_count(false_positive) * false_positive
    return weights


def _one_over_count(mask: Bool[Tensor, "batch 1 y x"]) -> Float[Tensor, "batch 1 1 1"]:
    """Weight of each cell of a mask whose cells weigh 1 together; 0 for an empty mask."""
    count = mask.sum(dim=(2, 3), keepdim=True)
    return torch.where(count > 0, 1 / count.clamp(min=1), 0.0)
