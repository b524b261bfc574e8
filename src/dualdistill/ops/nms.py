"""Greedy non-maximum suppression of many groups of boxes at once (docs/methods/centerpoint.md#decoding).

A group is what is suppressed together: the boxes of one sample and task (`group` None: a single one). Of a group the
`pre_max` best boxes take part, and at most `post_max` are kept. Thresholds are one for all boxes, or one a box, equal
within a group. The functions return the indices of the boxes they keep, group after group, best first; of equal scores,
the earlier box counts as better.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dualdistill.ops.rotated_iou import iou_of_pairs

Near = Callable[[Tensor, Tensor], Tensor]
"""Test of whether boxes are near each other, from their columns; broadcasts."""


def circle_nms(
    centers: Float[Tensor, "boxes 2"],
    scores: Float[Tensor, "boxes"],
    squared_radius: float | Float[Tensor, "boxes"],
    post_max: int,
    group: Int[Tensor, "boxes"] | None = None,
) -> Int[Tensor, "kept"]:
    """Suppress every box whose centre is within `squared_radius` (m², border included) of a better one's.

    The released configurations call this value a radius; it is compared with the squared distance.
    """
    order, group = _ranked(scores, group)
    x, y = centers.detach().index_select(0, order).unbind(dim=1)
    columns = torch.stack([x, y, _each(squared_radius, x, order)])

    def near(a: Tensor, b: Tensor) -> Tensor:
        return (a[0] - b[0]).square() + (a[1] - b[1]).square() <= a[2]

    better, worse = close_pairs(columns, group, near, padded=x.device.type != "cpu")
    return order[_at_most(post_max, group, greedy(better, worse, len(order)))]


def rotated_nms(
    boxes: Float[Tensor, "boxes 5"],
    scores: Float[Tensor, "boxes"],
    iou_threshold: float | Float[Tensor, "boxes"],
    pre_max: int,
    post_max: int,
    group: Int[Tensor, "boxes"] | None = None,
    factors: Float[Tensor, "boxes"] | None = None,
) -> Int[Tensor, "kept"]:
    """Suppress every rectangle (x, y, length, width, yaw) whose IoU with a better one exceeds the threshold.

    `factors`: overlaps are those of rectangles whose length and width are so many times as large (scale suppression).
    Small objects, enlarged, suppress neighbours they do not overlap; large ones, shrunk, spare theirs.
    """
    if factors is not None:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:4] * factors[:, None], boxes[:, 4:]], dim=1)
    order, group = _ranked(scores, group)
    if len(order) > pre_max:
        best = _at_most(pre_max, group, torch.ones_like(group, dtype=torch.bool))
        order, group = order[best], group[best]
    boxes = boxes.detach().index_select(0, order)
    columns = torch.stack([boxes[:, 0], boxes[:, 1], boxes[:, 2:4].norm(dim=1) / 2])

    def near(a: Tensor, b: Tensor) -> Tensor:
        """True where the circumscribed circles meet."""
        return (a[0] - b[0]).square() + (a[1] - b[1]).square() < (a[2] + b[2]).square()

    better, worse = close_pairs(columns, group, near, padded=boxes.device.type != "cpu")
    iou = iou_of_pairs(boxes.index_select(0, better), boxes.index_select(0, worse))
    conflict = (iou > _each(iou_threshold, iou, order).index_select(0, better)).nonzero().squeeze(1)
    keep = greedy(better.index_select(0, conflict), worse.index_select(0, conflict), len(order))
    return order[_at_most(post_max, group, keep)]


def greedy(better: Int[Tensor, "pairs"], worse: Int[Tensor, "pairs"], count: int) -> Bool[Tensor, "count"]:
    """Survivors if each box, best first, is kept unless it conflicts with a better one already kept.

    All boxes are kept at first; then those in conflict with a better kept one are struck out, again and again, until
    nothing changes. After n rounds the first n decisions are those of the sequential loop; real scenes need a few.

    Args:
        better: Index of the better box of each conflicting pair.
        worse: Index of the other, larger.
        count: Number of boxes; indices fall with the score.
    """
    keep = torch.ones(count, device=better.device)
    while True:
        struck = torch.zeros_like(keep).index_add_(0, worse, keep.index_select(0, better))
        survivors = (struck == 0).float()
        if torch.equal(keep, survivors):
            return keep.bool()
        keep = survivors


def close_pairs(
    columns: Float[Tensor, "column boxes"], group: Int[Tensor, "boxes"], near: Near, *, padded: bool
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """Indices i < j of all pairs of boxes of one group that are near each other.

    Args:
        columns: Arguments of `near` for each box.
        group: Ascending.
        padded: All groups at once, filled up to the size of the largest: few launches for a GPU. Otherwise one after
            the other, in less memory.
    """
    if not len(group):
        return group, group
    _, own, size = torch.unique_consecutive(group, return_inverse=True, return_counts=True)
    sizes, start = size.tolist(), size.cumsum(0) - size
    if padded:
        most = max(sizes)
        place = own * most + torch.arange(len(group), device=group.device) - start.index_select(0, own)
        room = columns.new_full((len(columns), len(sizes) * most), torch.nan)  # NaN is near nothing
        blocks = (room.index_copy(1, place, columns).unflatten(1, (len(sizes), most)),)
        starts = (start,)
    else:
        blocks = tuple(block[:, None] for block in columns.split(sizes, dim=1))
        starts = start.split(1)
    pairs = []
    for block, first in zip(blocks, starts, strict=True):
        which, i, j = near(block[..., :, None], block[..., None, :]).triu(diagonal=1).nonzero().unbind(dim=1)
        pairs.append(torch.stack([i, j]) + first.index_select(0, which))
    better, worse = torch.cat(pairs, dim=1)
    return better, worse


def _ranked(
    scores: Float[Tensor, "boxes"], group: Int[Tensor, "boxes"] | None
) -> tuple[Int[Tensor, "boxes"], Int[Tensor, "boxes"]]:
    """Indices of the boxes by group, then by falling score; and the group of each in that order."""
    order = scores.argsort(descending=True, stable=True)
    if group is None:
        return order, torch.zeros_like(order)
    group = group.index_select(0, order)
    by_group = group.argsort(stable=True)
    return order.index_select(0, by_group), group.index_select(0, by_group)


def _each(value: float | Tensor, like: Tensor, order: Int[Tensor, "boxes"]) -> Float[Tensor, "boxes"]:
    """A value of each box in `order`, in the type of `like`."""
    if isinstance(value, Tensor):
        return value.index_select(0, order).to(like.dtype)
    return like.new_full((len(order),), value)


def _at_most(most: int, group: Int[Tensor, "boxes"], kept: Bool[Tensor, "boxes"]) -> Bool[Tensor, "boxes"]:
    """`kept` without those that come after the first `most` of their group; groups ascend."""
    count = kept.cumsum(0)
    before = (count - kept.long()).index_select(0, torch.searchsorted(group, group))
    return kept & (count - before <= most)
