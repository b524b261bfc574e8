"""Non-maximum suppression in BEV, greedy by score (docs/methods/centerpoint.md#decoding).

Functions that take scores return the indices of the boxes they keep, best first; of equal scores, the earlier
box counts as better.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dualdistill.ops.rotated_iou import rotated_iou

_PAIRS_AT_ONCE = 3 << 13
"""Distances worked on in one go on a CPU."""


def greedy(conflict: Bool[Tensor, "boxes boxes"]) -> Bool[Tensor, "boxes"]:
    """Who survives if boxes, best first, are kept unless they conflict with a better one already kept.

    Args:
        conflict: [i, j]: box i, if kept, strikes out box j; only i < j counts.
    """
    return _greedy_in_turn(conflict) if conflict.device.type == "cpu" else greedy_at_once(conflict)


def greedy_at_once(conflict: Bool[Tensor, "boxes boxes"]) -> Bool[Tensor, "boxes"]:
    """`greedy` without a loop over boxes, for devices.

    Starts with everybody and lets the survivors strike out their victims until nothing changes. After n
    rounds the first n decisions are final and those of the sequential loop; real scenes settle in a few.
    """
    strikes = conflict.triu(diagonal=1).float()
    keep = strikes.new_ones(len(strikes))
    while not torch.equal(keep, survivors := (keep @ strikes == 0).float()):
        keep = survivors
    return keep.bool()


def _greedy_in_turn(conflict: Bool[Tensor, "boxes boxes"]) -> Bool[Tensor, "boxes"]:
    """`greedy` box by box: whom a box strikes out is one long whole number, a bit a box."""
    rows = np.packbits(conflict.numpy(), axis=1, bitorder="little")
    victims, width = rows.tobytes(), rows.shape[1]
    struck, keep = 0, []
    for box in range(len(conflict)):
        if not struck >> box & 1:
            keep.append(box)
            struck |= int.from_bytes(victims[box * width : (box + 1) * width], "little")
    return torch.zeros(len(conflict), dtype=torch.bool).index_fill_(0, torch.tensor(keep, dtype=torch.long), True)


def circle_nms(
    centers: Float[Tensor, "boxes 2"], scores: Float[Tensor, "boxes"], squared_radius: float, post_max: int
) -> Int[Tensor, "kept"]:
    """Suppress every box whose centre is within `squared_radius` (m², border included) of a better one's.

    The released configurations call this value a radius; it is compared with the squared distance.
    """
    order = scores.argsort(descending=True, stable=True)
    x, y = centers.detach().index_select(0, order).T.contiguous()
    if centers.device.type == "cpu" and centers.dtype != torch.bfloat16:  # which NumPy does not know
        near = torch.from_numpy(_near_in_strips(x.numpy(), y.numpy(), squared_radius))
    else:
        near = (x[:, None] - x).square() + (y[:, None] - y).square() <= squared_radius
    return order[greedy(near)][:post_max]


def _near_in_strips(x: np.ndarray, y: np.ndarray, squared_radius: float) -> np.ndarray:
    """[i, j]: points i < j are within the radius; anything, where i >= j.

    A strip at a time, into the same memory: fetching fresh memory for whole matrices costs more than the arithmetic.
    """
    count, rows = len(x), max(1, _PAIRS_AT_ONCE // max(1, len(x)))
    near, (along, across) = np.empty((count, count), bool), np.empty((2, rows * count), x.dtype)
    for first in range(0, count, rows):
        last = min(count, first + rows)
        size = (last - first, count - first)
        dx, dy = along[: math.prod(size)].reshape(size), across[: math.prod(size)].reshape(size)
        np.subtract(x[first:last, None], x[first:], out=dx)
        np.subtract(y[first:last, None], y[first:], out=dy)
        np.multiply(dx, dx, out=dx)
        np.multiply(dy, dy, out=dy)
        np.less_equal(np.add(dx, dy, out=dx), x.dtype.type(squared_radius), out=near[first:last, first:])
    return near


def rotated_nms(
    boxes: Float[Tensor, "boxes 5"],
    scores: Float[Tensor, "boxes"],
    iou_threshold: float,
    pre_max: int,
    post_max: int,
) -> Int[Tensor, "kept"]:
    """Suppress every rectangle (x, y, length, width, yaw) whose IoU with a better one exceeds the threshold.

    Only the `pre_max` best enter, the `post_max` best leave.
    """
    order = scores.argsort(descending=True, stable=True)[:pre_max]
    best = boxes.index_select(0, order)
    return order[greedy(rotated_iou(best, best) > iou_threshold)][:post_max]


def scale_nms(
    boxes: Float[Tensor, "boxes 5"],
    scores: Float[Tensor, "boxes"],
    factors: Float[Tensor, "boxes"],
    iou_threshold: float,
    pre_max: int,
    post_max: int,
) -> Int[Tensor, "kept"]:
    """`rotated_nms` as if length and width were `factors` times as large (one a box, by its class).

    Small objects, enlarged, suppress neighbours they do not overlap; large ones, shrunk, spare theirs.
    """
    scaled = torch.cat([boxes[:, :2], boxes[:, 2:4] * factors[:, None], boxes[:, 4:]], dim=1)
    return rotated_nms(scaled, scores, iou_threshold, pre_max, post_max)
