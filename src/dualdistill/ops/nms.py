"""Non-maximum suppression in BEV, greedy by score, no loop over boxes (spec bevdepth 9.5, centerpoint 14).

Functions that take scores return the indices of the boxes they keep, best first; of equal scores, the earlier
box counts as better.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dualdistill.ops.rotated_iou import rotated_iou


def greedy(conflict: Bool[Tensor, "boxes boxes"]) -> Bool[Tensor, "boxes"]:
    """Who survives if boxes, best first, are kept unless they conflict with a better one already kept.

    Starts with everybody and lets the survivors strike out their victims until nothing changes. After n
    rounds the first n decisions are final and those of the sequential loop; real scenes settle in a few.

    Args:
        conflict: [i, j]: box i, if kept, strikes out box j; only i < j counts.
    """
    strikes = conflict.triu(diagonal=1).float()
    keep = strikes.new_ones(len(strikes))
    while not torch.equal(keep, survivors := (keep @ strikes == 0).float()):
        keep = survivors
    return keep.bool()


def circle_nms(
    centers: Float[Tensor, "boxes 2"], scores: Float[Tensor, "boxes"], squared_radius: float, post_max: int
) -> Int[Tensor, "kept"]:
    """Suppress every box whose centre is within `squared_radius` (m², border included) of a better one's.

    The released configurations call this value a radius; it is compared with the squared distance.
    """
    order = scores.argsort(descending=True, stable=True)
    x, y = centers.index_select(0, order).unbind(dim=1)
    apart = (x[:, None] - x).square() + (y[:, None] - y).square()
    return order[greedy(apart <= squared_radius)][:post_max]


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
