"""Lift-splat pooling as published: the frustum of features is made, sorted by cell and summed.

Source: "Lift, Splat, Shoot" (Philion and Fidler, ECCV 2020), section 4.2, the cumulative sum trick with its own
gradient; BEVDet (Huang et al., 2021) and BEVDepth keep the frustum and add it up with a scatter.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def materialised(
    depth: Float[Tensor, "images depth h w"], context: Float[Tensor, "images chan h w"]
) -> Float[Tensor, "points chan"]:
    """The frustum tensor: each pixel's context times each of its depth probabilities."""
    return (depth[:, None] * context[:, :, None]).permute(0, 2, 3, 4, 1).reshape(-1, context.shape[1])


def cumsum_pool(
    depth: Float[Tensor, "images depth h w"],
    context: Float[Tensor, "images chan h w"],
    cell: Int[Tensor, "points"],
    shape: tuple[int, int, int],
) -> Float[Tensor, "batch chan y x"]:
    """The cumulative sum trick: sort, one running sum through everything, differences at the ends of cells.

    Args:
        cell: Flat cell (batch, y, x) of each point (images, depth, h, w); -1 for none.
    """
    kept = cell >= 0
    features, cell = materialised(depth, context)[kept], cell[kept]
    order = cell.argsort()
    features, cell = features[order], cell[order]
    ends = torch.ones_like(cell, dtype=torch.bool)
    ends[:-1] = cell[1:] != cell[:-1]
    return _as_map(_RunSum.apply(features, ends), cell[ends], shape)


class _RunSum(torch.autograd.Function):
    """Sum of each run of rows; the gradient of a sum goes to every row of its run."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ends: Bool[Tensor, "rows"]) -> Tensor:
        ctx.save_for_backward(ends)
        total = rows.cumsum(0)[ends]
        return torch.cat([total[:1], total[1:] - total[:-1]])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (ends,) = ctx.saved_tensors
        run = ends.cumsum(0)
        run[ends] -= 1
        return grad[run], None


def scatter_pool(
    depth: Float[Tensor, "images depth h w"],
    context: Float[Tensor, "images chan h w"],
    cell: Int[Tensor, "points"],
    shape: tuple[int, int, int],
) -> Float[Tensor, "batch chan y x"]:
    """The whole frustum added up cell by cell (arguments as in `cumsum_pool`); a last cell takes what is outside."""
    batch, height, width = shape
    features, outside = materialised(depth, context), batch * height * width
    canvas = features.new_zeros(outside + 1, features.shape[1])
    canvas = canvas.index_add(0, torch.where(cell < 0, outside, cell), features)[:outside]
    return canvas.view(batch, height, width, -1).permute(0, 3, 1, 2)


def _as_map(
    sums: Float[Tensor, "occupied chan"], cell: Int[Tensor, "occupied"], shape: tuple[int, int, int]
) -> Float[Tensor, "batch chan y x"]:
    batch, height, width = shape
    canvas = sums.new_zeros(batch * height * width, sums.shape[1])
    canvas[cell] = sums
    return canvas.view(batch, height, width, -1).permute(0, 3, 1, 2)
