"""Lift-splat pooling: image features, weighted by depth probability, summed into the BEV cells of their rays.

`bev_pool` is the definition. `lift_splat_pool` computes the same from depth and context without ever holding
their product: it is an embedding bag whose table are the image features, whose bags are the BEV cells and
whose weights are depth probabilities.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dualdistill.geometry.grid import BevGrid


def bev_pool(
    features: Float[Tensor, "points chan"],
    cells: Int[Tensor, "points 3"],
    shape: tuple[int, int, int],
) -> Float[Tensor, "batch chan y x"]:
    """Sum of the features in each cell. This is the definition; a kernel must agree with it.

    Args:
        features: Context times depth probability, all cameras and samples together.
        cells: (batch, y, x) of each feature; those outside `shape` (the grid) are dropped.
    """
    batch, height, width = shape
    inside = ((cells >= 0) & (cells < cells.new_tensor(shape))).all(dim=1)
    b, y, x = cells[inside].unbind(dim=1)
    grid = features.new_zeros(batch * height * width, features.shape[1])
    grid = grid.index_add(0, (b * height + y) * width + x, features[inside])
    return grid.view(batch, height, width, -1).permute(0, 3, 1, 2)


def pool_cells(
    points_bev: Float[Tensor, "batch cam depth h w 3"],
    grid: BevGrid,
    z_range: tuple[float, float],
    index: Literal["floor", "truncate"] = "floor",
) -> Int[Tensor, "batch cam depth h w 3"]:
    """(batch, y, x) of the cell each frustum point falls into; y = x = -1 for those that fall into none.

    Args:
        z_range: Lowest and highest z that count, metres, the latter excluded.
        index: "truncate" rounds toward zero as the released code does, and so lets in one cell more below
            each lower bound, and one more `z_range` (spec bevdepth 6.5). Published weights were trained so.
    """
    low, high = z_range
    xy, z = points_bev[..., :2], points_bev[..., 2]
    if index == "floor":
        cells, in_height = grid.cells(xy), (z >= low) & (z < high)
    else:
        cells, in_height = grid.coordinates(xy).trunc().long(), (z > 2 * low - high) & (z < high)
    x, y = cells.masked_fill(~(grid.inside(cells) & in_height)[..., None], -1).unbind(dim=-1)
    batch = torch.arange(len(points_bev), device=points_bev.device).view(-1, 1, 1, 1, 1)
    return torch.stack([batch.expand_as(x), y, x], dim=-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolPlan:
    """Which frustum points meet in which cell: all that pooling needs to know of the geometry.

    Points that fall into no cell are left out. A "pixel" is a feature cell of an image, a "cell" one of a BEV
    map; both count through the whole batch.
    """

    shape: tuple[int, int, int]
    """(batch, y, x) of the map."""
    frustum_shape: tuple[int, int, int, int]
    """(images, depth, h, w) the plan was made for."""
    point: Int[Tensor, "kept"]
    """Flat index (images, h, w, depth) of each kept point, pixel after pixel."""
    cell: Int[Tensor, "kept"]
    """The cell of each, in the same order."""
    pixel_start: Int[Tensor, "pixels"]
    """Where the points of each pixel begin in that order."""
    point_by_cell: Int[Tensor, "kept"]
    """The same points, cell after cell."""
    pixel_by_cell: Int[Tensor, "kept"]
    """The pixel of each, in that order."""
    cell_start: Int[Tensor, "cells"]
    """Where the points of each cell begin in that order."""


def make_pool_plan(
    points_bev: Float[Tensor, "batch cam depth h w 3"],
    grid: BevGrid,
    z_range: tuple[float, float],
    index: Literal["floor", "truncate"] = "floor",
) -> PoolPlan:
    """The plan for a batch of lifted frustums (arguments as in `pool_cells`).

    It depends on calibration and augmentation alone: without augmentation one plan serves many batches.
    """
    batch, cameras, depths, height, width, _ = points_bev.shape
    pixels, cells = batch * cameras * height * width, batch * grid.height * grid.width
    b, y, x = pool_cells(points_bev, grid, z_range, index).movedim(2, 4).reshape(-1, 3).unbind(dim=1)
    kept = x >= 0
    point = kept.nonzero().squeeze(1)
    cell = ((b * grid.height + y) * grid.width + x).index_select(0, point).int()
    points_of_pixel, points_of_cell = (
        kept.view(pixels, depths).sum(dim=1),
        torch.bincount(cell, minlength=cells),
    )
    pixel = torch.arange(pixels, device=point.device).repeat_interleave(points_of_pixel, output_size=len(point))
    order = cell.argsort(stable=True)
    return PoolPlan(
        shape=(batch, grid.height, grid.width),
        frustum_shape=(batch * cameras, depths, height, width),
        point=point.int(),
        cell=cell,
        pixel_start=_starts(points_of_pixel),
        point_by_cell=point.index_select(0, order).int(),
        pixel_by_cell=pixel.index_select(0, order).int(),
        cell_start=_starts(points_of_cell),
    )


def _starts(count: Int[Tensor, "bags"]) -> Int[Tensor, "bags"]:
    """Where each bag begins if bags of so many members stand in a row."""
    return (count.cumsum(0) - count).int()


def lift_splat_pool(
    depth: Float[Tensor, "images depth h w"], context: Float[Tensor, "images chan h w"], plan: PoolPlan
) -> Float[Tensor, "batch chan y x"]:
    """BEV map of `context` spread along its rays by `depth`; equal to `bev_pool` of their product.

    Computes and returns in the wider of the two types; differentiable once, in both. Fastest if both are
    channels-last in memory, as the map will be.

    Raises:
        ValueError: if depth or context are not of the shape the plan was made for.
    """
    images, depths, height, width = plan.frustum_shape
    if depth.shape != plan.frustum_shape or context.shape != (images, context.shape[1], height, width):
        raise ValueError(
            f"this plan pools {images} images of {depths}x{height}x{width} (depth, h, w), "
            f"got depth {tuple(depth.shape)} and context {tuple(context.shape)}"
        )
    dtype = torch.promote_types(depth.dtype, context.dtype)
    return _LiftSplat.apply(depth.to(dtype), context.to(dtype), plan)


class _LiftSplat(torch.autograd.Function):
    """map[cell] = Σ over its points of depth[point] · context[pixel of the point]."""

    @staticmethod
    def forward(ctx: Any, depth: Tensor, context: Tensor, plan: PoolPlan) -> Tensor:
        ctx.save_for_backward(depth, context)
        ctx.plan = plan
        weights = _rows(depth).flatten().index_select(0, plan.point_by_cell)
        pooled = _bag_sum(_rows(context), plan.pixel_by_cell, plan.cell_start, weights)
        batch, height, width = plan.shape
        return pooled.view(batch, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_map: Tensor) -> tuple[Tensor, Tensor, None]:
        """One bag sum serves both gradients.

        Let s(pixel) = Σ over its points of depth[point] · grad[cell]. That is the gradient of the context.
        The gradient of a depth, context[pixel] · grad[cell], is the derivative of Σ s · context by it, the
        fast gradient of a bag's weights; the slow one, of a bag's table, is never asked for.
        """
        depth, context = ctx.saved_tensors
        plan: PoolPlan = ctx.plan
        images, depths, height, width = plan.frustum_shape
        with torch.enable_grad():
            weights = _rows(depth.detach()).flatten().index_select(0, plan.point).requires_grad_()
            grad_rows = _bag_sum(_rows(grad_map), plan.cell, plan.pixel_start, weights)
        (grad_weights,) = torch.autograd.grad(grad_rows, weights, _rows(context.detach()))
        grad_depth = depth.new_zeros(depth.numel()).index_copy_(0, plan.point.long(), grad_weights)
        grad_depth = grad_depth.view(images, height, width, depths).permute(0, 3, 1, 2)
        grad_context = grad_rows.detach().view(images, height, width, -1).permute(0, 3, 1, 2)
        return grad_depth, grad_context, None


def _rows(maps: Float[Tensor, "images chan h w"]) -> Float[Tensor, "pixels chan"]:
    """One row a pixel; free for channels-last maps."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _bag_sum(
    table: Float[Tensor, "rows chan"],
    row: Int[Tensor, "kept"],
    start: Int[Tensor, "bags"],
    weights: Float[Tensor, "kept"],
) -> Float[Tensor, "bags chan"]:
    """Sum of weighted rows in each bag."""
    return F.embedding_bag(row, table, start, mode="sum", per_sample_weights=weights)
