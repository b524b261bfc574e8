"""Points to pillars, and reductions over the points of a pillar or any other group
(docs/methods/centerpoint.md#voxelization, dynamic form)."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.integers import group_sizes, places


@dataclass(frozen=True, kw_only=True, slots=True)
class Pillars:
    """Assignment of points to pillars. Points outside the range are in none."""

    kept: Int[Tensor, "kept"]
    """Indices of the points inside the range, ascending."""
    pillar: Int[Tensor, "kept"]
    """Pillar of each kept point."""
    cells: Int[Tensor, "pillars 3"]
    """(sample, y, x) of each pillar, ascending, each once."""

    def __len__(self) -> int:
        return len(self.cells)

    def centers(self, grid: BevGrid) -> Float[Tensor, "pillars 2"]:
        """Centre (x, y) of each pillar, metres."""
        _, y, x = self.cells.unbind(dim=1)
        return torch.stack([(x + 0.5) * grid.cell + grid.x_min, (y + 0.5) * grid.cell + grid.y_min], dim=1)


def dynamic_voxelize(
    xyz: Float[Tensor, "points 3"],
    sample: Int[Tensor, "points"],
    grid: BevGrid,
    z_range: tuple[float, float],
    batch_size: int,
) -> Pillars:
    """Group points by BEV cell, no caps: floor, and half-open ranges along all three axes.

    Args:
        xyz: Metres, BEV frame.
        sample: Sample of each point in the batch, from 0.
        z_range: Lowest and highest z, metres, the latter excluded.
    """
    x, y = grid.cells(xyz[:, :2]).unbind(dim=1)
    inside = (x >= 0) & (x < grid.width) & (y >= 0) & (y < grid.height)
    inside &= (xyz[:, 2] >= z_range[0]) & (xyz[:, 2] < z_range[1])
    cells = batch_size * grid.height * grid.width
    flat = ((sample * grid.height + y) * grid.width + x).masked_fill(~inside, cells)
    # Counting points in every cell of the map takes a tenth of the time that sorting them (`unique`) does.
    filled = group_sizes(flat, cells + 1)[:cells] > 0
    points, pillars = torch.stack([inside.sum(), filled.sum()]).tolist()  # on a GPU, the only wait
    kept, occupied = places(inside, points).squeeze(1), places(filled, pillars).squeeze(1)
    pillar = (filled.cumsum(0) - 1).index_select(0, flat.index_select(0, kept))
    row = occupied // grid.width
    return Pillars(
        kept=kept,
        pillar=pillar,
        cells=torch.stack([row // grid.height, row % grid.height, occupied % grid.width], dim=1),
    )


def scatter_mean(
    values: Float[Tensor, "points chan"], group: Int[Tensor, "points"], groups: int
) -> Float[Tensor, "groups chan"]:
    """Mean of the values in each group; zero for a group without any."""
    count = group_sizes(group, groups).clamp(min=1)
    return values.new_zeros(groups, values.shape[1]).index_add(0, group, values) / count[:, None]


def scatter_max(
    values: Float[Tensor, "points chan"], group: Int[Tensor, "points"], groups: int
) -> Float[Tensor, "groups chan"]:
    """Largest of the values in each group, channel by channel; zero for a group without any.

    The gradient goes to the largest value, in equal parts if there are several.
    """
    return _GroupMax.apply(values, group, groups)


class _GroupMax(torch.autograd.Function):
    """`scatter_reduce` with "amax" and a gradient of its own.

    PyTorch's takes several times as long on a CPU, and wherever the maximum is zero it shares the gradient
    with the initial value, although that is excluded (`include_self=False`).
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Tensor, groups: int) -> Tensor:
        zeros = values.new_zeros(groups, values.shape[1])
        index = group[:, None].expand_as(values)
        largest = zeros.scatter_reduce(0, index, values, reduce="amax", include_self=False)
        ctx.save_for_backward(values, group, largest)
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_largest: Tensor) -> tuple[Tensor, None, None]:
        values, group, largest = ctx.saved_tensors
        won = (values == largest.index_select(0, group)).to(values.dtype)
        winners = torch.zeros_like(largest).index_add_(0, group, won)
        return won.mul_((grad_largest / winners.clamp(min=1)).index_select(0, group)), None, None


_ROWS_AT_ONCE = 1 << 13
"""Members computed in one go on a CPU; their values fit its cache."""


def linear_max(
    rows: Float[Tensor, "rows in_chan"], weight: Float[Tensor, "chan in_chan"], start: Int[Tensor, "groups"]
) -> Float[Tensor, "groups chan"]:
    """Maximum over each group of `rows @ weight.T`, channel by channel; differentiable once, in `weight` alone.

    Of equal members, the first takes the gradient. `start`: first row of each group; groups follow each other, none is
    empty, and the first starts at 0.
    """
    return _LinearMax.apply(rows, weight, start)


class _LinearMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, start: Tensor) -> Tensor:
        largest = rows.new_empty(len(start), len(weight))
        winners = torch.empty_like(largest, dtype=torch.int32)
        pieces = _pieces(start, rows)
        member = torch.arange(max((last - first for _, _, first, last in pieces), default=0), device=rows.device).int()
        for begin, end, first, last in pieces:
            values = rows[first:last] @ weight.T
            # The maximum of an embedding bag comes with its position; other reductions with one take ten times as long.
            inside, offsets = member[: last - first], (start[begin:end] - first).int()
            largest[begin:end], _, _, winners[begin:end] = torch.embedding_bag(values, inside, offsets, mode=2)
        ctx.save_for_backward(rows, weight, winners)
        ctx.pieces = pieces
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_largest: Tensor) -> tuple[None, Tensor, None]:
        rows, weight, winners = ctx.saved_tensors
        grad_weight = torch.zeros_like(weight)
        for begin, end, first, last in ctx.pieces:
            grad_values = rows.new_zeros(last - first, len(weight))
            grad_values.scatter_(0, winners[begin:end].long(), grad_largest[begin:end])
            grad_weight.addmm_(grad_values.T, rows[first:last])
        return None, grad_weight, None


def _pieces(start: Int[Tensor, "groups"], rows: Float[Tensor, "rows _"]) -> list[tuple[int, int, int, int]]:
    """(first group, end; first row, end) of pieces of whole groups, at least `_ROWS_AT_ONCE` rows each."""
    groups, count = len(start), len(rows)
    if groups == 0:
        return []
    if rows.device.type != "cpu":
        return [(0, groups, 0, count)]
    cuts = torch.arange(0, count, _ROWS_AT_ONCE, dtype=start.dtype)
    begins = torch.searchsorted(start, cuts).unique()  # the next group that begins at or after the cut
    begins = begins[begins < groups]
    ends = [*begins[1:].tolist(), groups]
    rows_at = [*start[begins].tolist(), count]
    return list(zip(begins.tolist(), ends, rows_at[:-1], rows_at[1:], strict=True))
