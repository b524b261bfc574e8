"""Maximum of a linear function over the members of each group, without storing the function's values."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

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
