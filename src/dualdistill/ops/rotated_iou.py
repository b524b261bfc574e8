"""Intersection over union of rotated rectangles: (x, y, length, width, yaw counter-clockwise)."""

import torch
from jaxtyping import Float
from torch import Tensor

from dualdistill.ops.integers import constant

_PAIRS_AT_ONCE = 1 << 13
"""Pairs computed in one go on a CPU; bounds memory, and fits its cache."""


def rotated_iou(a: Float[Tensor, "a 5"], b: Float[Tensor, "b 5"]) -> Float[Tensor, "a b"]:
    """IoU of all pairs of rectangles; 0 where two only touch, or where neither has an area.

    Only pairs whose circumscribed circles meet are computed, in float64 (see `_shared_area`).
    """
    reach_a, reach_b = a[:, 2:4].norm(dim=1) / 2, b[:, 2:4].norm(dim=1) / 2
    apart = (a[:, None, 0] - b[:, 0]).square() + (a[:, None, 1] - b[:, 1]).square()
    row, column = (apart < (reach_a[:, None] + reach_b).square()).nonzero().unbind(dim=1)
    found = iou_of_pairs(a.index_select(0, row), b.index_select(0, column))
    return found.new_zeros(len(a), len(b)).index_put((row, column), found)


def iou_of_pairs(a: Float[Tensor, "pairs 5"], b: Float[Tensor, "pairs 5"]) -> Float[Tensor, "pairs"]:
    """`rotated_iou` of each pair, computed in float64 and returned in the wider of the two types."""
    dtype = torch.promote_types(a.dtype, b.dtype)
    at_once = _PAIRS_AT_ONCE if a.device.type == "cpu" else max(1, len(a))
    parts = [
        _iou(first.double(), second.double()).to(dtype)
        for first, second in zip(a.split(at_once), b.split(at_once), strict=True)
    ]
    return torch.cat(parts) if parts else a.new_zeros(0, dtype=dtype)


def _iou(a: Float[Tensor, "pairs 5"], b: Float[Tensor, "pairs 5"]) -> Float[Tensor, "pairs"]:
    shared = _shared_area(a, b)
    union = a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - shared
    return torch.where(union > 0, shared / union, 0.0)


def _shared_area(a: Float[Tensor, "pairs 5"], b: Float[Tensor, "pairs 5"]) -> Float[Tensor, "pairs"]:
    """Area of the intersection of each pair, square metres.

    In the frame of `a`, the intersection is swept along x: its extent along y is linear between breakpoints
    (corners of `b`, and where the sides of `b` cross those of `a`), so the extent at the middle of each step
    times the step is exact. Nothing jumps where sides coincide, so there are no tolerances.
    """
    cos, sin = a[:, 4].cos(), a[:, 4].sin()
    dx, dy = (b[:, :2] - a[:, :2]).unbind(dim=1)
    cx, cy = dx * cos + dy * sin, dy * cos - dx * sin  # centre of b seen from a
    half_length, half_width = a[:, 2] / 2, a[:, 3] / 2
    turn = b[:, 4] - a[:, 4]
    cos, sin = turn.cos(), turn.sin()
    half = b[:, 2:4] / 2
    # b is where two strips |nx (x - cx) + ny (y - cy)| <= half meet: one bounds its length, one its width
    nx = _away_from_zero(torch.stack([cos, -sin], dim=1))
    ny = _away_from_zero(torch.stack([sin, cos], dim=1))

    u, v = (constant(signs, a.device, a.dtype)[:, None] for signs in ((1, 1, -1, -1), (1, -1, -1, 1)))
    corners = cx + u * half[:, 0] * cos - v * half[:, 1] * sin  # corner pairs
    # Where both sides of each strip cross the upper and the lower side of a.
    crossings = cx + (u * half.mT[:, None] - ny.mT[:, None] * (v * half_width - cy)) / nx.mT[:, None]
    breaks = torch.cat([corners, *crossings, torch.stack([-half_length, half_length])])  # breaks pairs
    x = breaks.clamp(-half_length, half_length).mT.contiguous().sort(dim=1).values
    middle, step = (x[:, 1:] + x[:, :-1]) / 2, x.diff(dim=1)  # pairs steps

    low, high = -half_width[:, None].expand_as(middle), half_width[:, None].expand_as(middle)
    for strip in (0, 1):
        across = nx[:, strip, None] * (middle - cx[:, None])
        one = cy[:, None] + (half[:, strip, None] - across) / ny[:, strip, None]
        other = cy[:, None] + (-half[:, strip, None] - across) / ny[:, strip, None]
        low = torch.maximum(low, torch.minimum(one, other))
        high = torch.minimum(high, torch.maximum(one, other))
    return ((high - low).clamp(min=0) * step).sum(dim=1)


def _away_from_zero(values: Tensor) -> Tensor:
    """Values to divide by: those too small are replaced by a tiny one of the same sign."""
    return torch.where(values.abs() < 1e-30, torch.copysign(torch.full_like(values, 1e-30), values), values)
