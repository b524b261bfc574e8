"""Lift-splat pooling: image features, weighted by depth probability, summed into the BEV cells of their rays.

`bev_pool` is the definition. `lift_splat_pool` computes the same from depth and context without ever holding
their product: it is an embedding bag whose table are the image features, whose bags are the BEV cells and
whose weights are depth probabilities.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import compress
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.integers import group_sizes, places, stable_order

_RUNS_AT_ONCE = 1 << 12
"""Gradient rows gathered in one go on a CPU: few enough for its cache, enough that calls cost little."""


def bev_pool(
    features: Float[Tensor, "points chan"], cells: Int[Tensor, "points"], shape: tuple[int, int, int]
) -> Float[Tensor, "batch chan y x"]:
    """Sum of the features in each cell: the definition that `lift_splat_pool` must agree with.

    Args:
        features: Context times depth probability, all cameras and samples together.
        cells: Cell of each feature, as of `pool_cells`; -1 for one that is dropped.
        shape: (batch, y, x) of the map.
    """
    batch, height, width = shape
    inside = cells >= 0
    grid = features.new_zeros(batch * height * width, features.shape[1])
    grid = grid.index_add(0, cells[inside], features[inside])
    return grid.view(batch, height, width, -1).permute(0, 3, 1, 2)


def pool_cells(
    points_bev: Float[Tensor, "batch cam depth h w 3"],
    grid: BevGrid,
    z_range: tuple[float, float],
    index: Literal["floor", "truncate"] = "floor",
) -> Int[Tensor, "batch cam depth h w"]:
    """Flat index (batch, y, x) of the cell of each frustum point; -1 for those in none.

    Args:
        z_range: Lowest and highest z that count, metres, the latter excluded.
        index: "truncate" rounds toward zero as the released code does, and so lets in one cell more below each lower
            bound, and one more `z_range` (docs/methods/bevdepth.md#pooling). Published weights were trained so.
    """
    (low, high), xy, z = z_range, points_bev[..., :2], points_bev[..., 2]
    if index == "floor":
        cells, in_height = grid.cells(xy), (z >= low) & (z < high)
    else:
        cells, in_height = grid.coordinates(xy).trunc().long(), (z > 2 * low - high) & (z < high)
    x, y = cells.unbind(dim=-1)
    sample = torch.arange(len(points_bev), device=points_bev.device).view(-1, 1, 1, 1, 1)
    flat = (sample * grid.height + y) * grid.width + x
    return flat.int().masked_fill(~(grid.inside(cells) & in_height), -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnPlan:
    """The kept points of some image columns of a `PoolPlan`, ordered for the gradients.

    The rays of one column of pixels have one direction, so that at a given depth they mostly share a cell. A "run" is a
    stretch of such pixels.
    """

    images: slice
    columns: slice
    """Image columns of each of these images."""
    run_bin: Int[Tensor, "columns runs"]
    """Flat index (images, w, depth) of the depth bin of each run of a column, counted within this part."""
    run_cell: Int[Tensor, "columns runs"]
    """The cell of each run."""
    run_misses: Bool[Tensor, "columns runs h"]
    """Pixels of the column that are not of the run; all of them, where a column has fewer runs than another."""
    run_by_bin: Int[Tensor, "part_runs"]
    """Flat index (columns, runs) of each real run, bin after bin."""
    bin_start: Int[Tensor, "bins"]
    """Position of the first run of each bin in that order."""

    def of(self, maps: Float[Tensor, "images chan h w"]) -> Float[Tensor, "part_images part_columns chan h"]:
        """View of these columns of image maps."""
        return maps.permute(0, 3, 1, 2)[self.images, self.columns]


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolPlan:
    """Assignment of frustum points to BEV cells: the geometry that pooling needs.

    Points that fall into no cell are left out. A "pixel" is a feature cell of an image, a "cell" one of a BEV
    map; both count through the whole batch.
    """

    shape: tuple[int, int, int]
    """(batch, y, x) of the map."""
    frustum_shape: tuple[int, int, int, int]
    """(images, depth, h, w) the plan was made for."""
    point_by_cell: Int[Tensor, "kept"]
    """Flat index (images, h, w, depth) of each kept point, cell after cell."""
    pixel_by_cell: Int[Tensor, "kept"]
    """Pixel of each kept point, in that order."""
    cell_start: Int[Tensor, "cells"]
    """Position of the first point of each cell in that order."""
    columns: tuple[ColumnPlan, ...]
    """The same points by image column, for the gradients. Together they hold every column once: on a CPU a few columns
    of one image each, which fit its cache; else all at once."""


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
    images, cells = batch * cameras, batch * grid.height * grid.width
    flat = pool_cells(points_bev, grid, z_range, index).flatten(0, 1)
    by_pixel = flat.permute(0, 2, 3, 1).flatten()  # images h w depth
    by_bin = flat.permute(0, 3, 1, 2).reshape(-1, height)  # (images w depth) h
    inside, begins = by_pixel >= 0, by_bin >= 0
    begins[:, 1:] &= by_bin[:, 1:] != by_bin[:, :-1]
    runs = begins.unflatten(0, (images * width, depths)).sum(dim=(1, 2))  # of each column
    found, all_runs, most_runs = torch.stack([inside.sum(), runs.sum(), runs.max()]).tolist()  # on a GPU, the only wait
    point = places(inside, found).squeeze(1)
    cell = by_pixel.index_select(0, point)
    point = point.index_select(0, stable_order(cell, cells))

    return PoolPlan(
        shape=(batch, grid.height, grid.width),
        frustum_shape=(images, depths, height, width),
        point_by_cell=point.int(),
        pixel_by_cell=(point // depths).int(),
        cell_start=_starts(group_sizes(cell, cells)),
        columns=_column_plans(by_bin, begins, (images, depths, height, width), all_runs, max(1, most_runs)),
    )


def _column_plans(
    by_bin: Int[Tensor, "bins h"],
    begins: Bool[Tensor, "bins h"],
    frustum_shape: tuple[int, int, int, int],
    all_runs: int,
    runs: int,
) -> tuple[ColumnPlan, ...]:
    """The columns of a plan.

    Args:
        by_bin: The cells of a frustum by image, column and depth; -1 for points in none.
        begins: Where a run of points of one depth bin and cell begins, from the top of a column down.
        frustum_shape: (images, depth, h, w).
        all_runs: Number of runs.
        runs: Most of one column, at least 1.
    """
    images, depths, height, width = frustum_shape
    bin, top = places(begins, all_runs).unbind(dim=1)
    number = begins.flatten().cumsum(0).view_as(by_bin)  # of the run each point is in, from 1
    own = number.index_select(0, bin) == torch.arange(1, len(bin) + 1, device=bin.device)[:, None]
    own &= by_bin.index_select(0, bin) >= 0
    columns, column = images * width, bin // depths
    runs_of_column = group_sizes(column, columns)
    place = column * runs + torch.arange(len(bin), device=bin.device) - _starts(runs_of_column)[column]
    run_bin = (torch.arange(columns * runs, device=bin.device) // runs * depths).int()
    run_bin = run_bin.index_copy(0, place, bin.int()).view(columns, runs)
    run_cell = by_bin.new_zeros(columns * runs).index_copy(0, place, by_bin[bin, top]).view(columns, runs)
    run_misses = own.new_ones(columns * runs, height).index_copy(0, place, ~own).view(columns, runs, height)
    run_by_bin, bin_start = place.int(), _starts(group_sizes(bin, len(by_bin)))

    def part(of_images: slice, of_columns: slice, first: int, last: int, begin: int, end: int) -> ColumnPlan:
        """The columns from `first` to before `last`, whose runs are those from `begin` to before `end`."""
        return ColumnPlan(
            images=of_images,
            columns=of_columns,
            run_bin=run_bin[first:last] - first * depths,
            run_cell=run_cell[first:last],
            run_misses=run_misses[first:last],
            run_by_bin=run_by_bin[begin:end] - first * runs,
            bin_start=bin_start[first * depths : last * depths] - begin,
        )

    if by_bin.device.type != "cpu":
        return (part(slice(images), slice(width), 0, columns, 0, len(bin)),)
    run_start = [*bin_start[::depths].tolist(), len(bin)]
    step = math.ceil(width / math.ceil(width * runs / _RUNS_AT_ONCE))
    parts = []
    for image in range(images):
        for left in range(0, width, step):
            right = min(left + step, width)
            first, last = image * width + left, image * width + right
            of_images, of_columns = slice(image, image + 1), slice(left, right)
            parts.append(part(of_images, of_columns, first, last, run_start[first], run_start[last]))
    return tuple(parts)


def _starts(count: Int[Tensor, "bags"]) -> Int[Tensor, "bags"]:
    """Position of the first member of each bag, in bags of these sizes one after the other."""
    return (count.cumsum(0) - count).int()


def lift_splat_pool(
    depth: Float[Tensor, "images depth h w"], context: Float[Tensor, "images chan h w"], plan: PoolPlan
) -> Float[Tensor, "batch chan y x"]:
    """BEV map of `context` spread along its rays by `depth`; equal to `bev_pool` of their product.

    Computes and returns in the wider of the two types; differentiable once, in both. Fastest if both are channels-last
    in memory, as the map will be. Raises ValueError if depth or context are not of the shape the plan was made for.
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
    """Pooling with its gradients: map[cell] = Σ over its points of depth[point] · context[pixel of the point]."""

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
    def backward(ctx: Any, grad_map: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Image column by image column, two small matrix products over its runs and its pixels.

        With G(run) = grad[cell of the run]: the gradient of a depth is context(pixel) · G(run), that of a context
        is Σ over the runs of depth(run, pixel) · G(run). Autograd's way, a dot product a point, takes three times as
        long on a CPU. There a few columns at a time go through the cache; only the gradients are held in full, each
        in the layout of its map, as autograd would otherwise copy it.
        """
        depth, context = ctx.saved_tensors
        wants_depth, wants_context, _ = ctx.needs_input_grad
        grad_rows = _rows(grad_map)
        grad_depth = torch.empty_like(depth) if wants_depth else None
        grad_context = torch.empty_like(context) if wants_context else None
        for part in ctx.plan.columns:
            gathered = grad_rows.index_select(0, part.run_cell.flatten()).unflatten(0, part.run_cell.shape)
            if grad_depth is not None:
                pixels = part.of(context).mT.flatten(0, 1)  # columns h chan
                by_run = torch.bmm(gathered, pixels.mT).masked_fill_(part.run_misses, 0).flatten(0, 1)
                by_bin = part.of(grad_depth)
                by_bin.copy_(_bag_sum(by_run, part.run_by_bin, part.bin_start).view_as(by_bin))
            if grad_context is not None:
                bins = part.of(depth).flatten(0, 2)  # (images w depth) h
                shares = bins.index_select(0, part.run_bin.flatten()).unflatten(0, part.run_bin.shape)
                by_pixel = part.of(grad_context).mT
                by_pixel.copy_(torch.bmm(shares.masked_fill_(part.run_misses, 0).mT, gathered).view_as(by_pixel))
        return grad_depth, grad_context, None


def _rows(maps: Float[Tensor, "images chan h w"]) -> Float[Tensor, "pixels chan"]:
    """Maps with one row a pixel; a view of channels-last maps."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _bag_sum(
    table: Float[Tensor, "rows chan"],
    row: Int[Tensor, "kept"],
    start: Int[Tensor, "bags"],
    weights: Float[Tensor, "kept"] | None = None,
) -> Float[Tensor, "bags chan"]:
    """Sum of (weighted) rows in each bag."""
    return F.embedding_bag(row, table, start, mode="sum", per_sample_weights=weights)


class PlanCache:
    """Pooling plans of the last cameras, found by exactly equal matrices.

    Useful wherever cameras and augmentation repeat: both frames of one sample, a fixed rig, a repeated batch.
    """

    def __init__(self, size: int = 4):
        """`size`: number of plans kept, those used last. One takes some 3 MB a sample at the published sizes."""
        self.size = size
        self._entries: list[tuple[Hashable, Tensor, PoolPlan]] = []  # setting, matrices, plan; used last comes last

    def get(self, matrices: tuple[Tensor, ...], setting: Hashable, make: Callable[[], PoolPlan]) -> PoolPlan:
        """The plan for `matrices` (all tensors it depends on, floats of one type) and `setting` (everything else), made
        if there is none."""
        key = torch.cat([matrix.flatten() for matrix in matrices])
        setting = (setting, tuple(matrix.shape for matrix in matrices), key.dtype, key.device)
        alike = [entry for entry in self._entries if entry[0] == setting]
        # Compared at once: one synchronisation with the device.
        equal = (torch.stack([known for _, known, _ in alike]) == key).all(dim=1).tolist() if alike else []
        used = next(compress(alike, equal), None) or (setting, key, make())
        self._entries = [*(entry for entry in self._entries if entry is not used), used][-self.size :]
        return used[2]
