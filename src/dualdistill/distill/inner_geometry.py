"""Geometry inside objects, in depth and in BEV features: pure functions, float32 in, float32 out.

Source: docs/methods/tig_bev.md#inner-depth,
docs/methods/tig_bev.md#keypoints and docs/methods/tig_bev.md#relation-losses.

Differs from the released code in where a keypoint is sampled: at its place, where the released code normalises for
one convention of `grid_sample` and samples by the other, which pulls keypoints up to a cell towards the upper bounds
of the map (docs/methods/tig_bev.md#keypoints). `Sampling` "released" is the released one; tests/parity holds both.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.integers import constant
from dualdistill.ops.processes import mean_count
from dualdistill.structures import Boxes

Sampling = Literal["exact", "released"]
"""Where a map is sampled for a point: at the point, or as released."""

BOXES_AT_ONCE = 64
"""Boxes whose similarity matrices exist at one time: a box takes about 10 MB at 24 x 24 keypoints."""


def expected_depth(
    logits: Float[Tensor, "batch cam depth h w"], depths: Float[Tensor, "depth"]
) -> Float[Tensor, "batch cam h w"]:
    """Mean of the depth distribution of each cell, metres; bin i stands for `depths[i]`."""
    return torch.einsum("bcdhw,d->bchw", logits.softmax(dim=2), depths)


def inner_depth_loss(
    predicted: Float[Tensor, "batch cam h w"],
    depth: Float[Tensor, "batch cam h w"],
    instance: Int[Tensor, "batch cam h w"],
) -> Float[Tensor, ""]:
    """Squared error of depths relative to a reference cell of the same object in the same camera; mean over all
    cells on objects, 0 without any.

    The reference is the cell whose prediction is best at the moment. It gets no gradient, neither as itself nor as
    the others' reference.

    Args:
        depth: True, metres.
        instance: Number of the object in that cell, unique in its sample; -1 for none.
    """
    on_object = (instance >= 0).flatten().nonzero().squeeze(1)  # once: the host waits for a GPU each time
    image = on_object // (instance.shape[-2] * instance.shape[-1])
    number, ours, theirs = (each.flatten().index_select(0, on_object) for each in (instance, predicted, depth))
    count = mean_count(torch.full((), len(number), device=number.device), at_least=1)
    if not len(number):
        return ours.sum()  # an empty sum: zero, and part of the graph
    _, group = torch.stack([image, number.long()]).unique(dim=1, return_inverse=True)
    reference = _best_of_groups((ours - theirs).detach().abs(), group)[group]
    relative, true = ours - ours.detach()[reference], theirs - theirs[reference]
    return (relative - true).square().sum() / count


def _best_of_groups(error: Float[Tensor, "cells"], group: Int[Tensor, "cells"]) -> Int[Tensor, "groups"]:
    """The first cell with the smallest error in each group."""
    groups = int(group.max()) + 1
    smallest = error.new_full((groups,), torch.inf).scatter_reduce(0, group, error, "amin")
    best = torch.where(~(error > smallest[group]))[0]  # written this way, the group of a NaN has one too
    first = group.new_full((groups,), len(group))
    return first.scatter_reduce(0, group[best], best, "amin")


def keypoints(boxes: Boxes, count: int, margin: float) -> Float[Tensor, "boxes points 2"]:
    """`count` x `count` points on the ground over each box, corners included, in metres; heights play no part.

    Args:
        margin: Metres by which the box is enlarged on every side.
    """
    steps = torch.linspace(-0.5, 0.5, count, device=boxes.center.device)
    unit = torch.cartesian_prod(steps, steps)  # points 2
    along, left = (unit * (boxes.size[:, None, :2] + 2 * margin)).unbind(dim=-1)  # boxes points
    cos, sin = boxes.yaw.cos()[:, None], boxes.yaw.sin()[:, None]
    turned = torch.stack([along * cos - left * sin, along * sin + left * cos], dim=-1)
    return boxes.center[:, None, :2] + turned


def grid_positions(
    points: Float[Tensor, "boxes points 2"], grid: BevGrid, sampling: Sampling = "exact"
) -> Float[Tensor, "boxes points 2"]:
    """Metres into what `grid_sample` takes for x and y; points outside go to the border of the map."""
    last = 1 if sampling == "released" else 0
    cells = constant([grid.width - last, grid.height - last], points.device, points.dtype)
    return (2 * grid.coordinates(points) / cells - 1).clamp(-1, 1)


def sample_map(
    features: Float[Tensor, "chan y x"],
    points: Float[Tensor, "boxes points 2"],
    grid: BevGrid,
    sampling: Sampling = "exact",
) -> Float[Tensor, "boxes chan points"]:
    """Features at points on the ground (metres), bilinear between cell centres, fading to zero past the outermost."""
    positions = grid_positions(points, grid, sampling)[None]
    return F.grid_sample(features[None], positions, padding_mode="zeros", align_corners=False)[0].transpose(0, 1)


def relation_loss(
    ours: Float[Tensor, "boxes rows _"], theirs: Float[Tensor, "boxes rows _"], at_once: int = BOXES_AT_ONCE
) -> Float[Tensor, ""]:
    """Difference between the relations of the rows of two sets of features: squared distance of the normalised rows
    of their similarity matrices, summed over the row, mean over rows and boxes; 0 without boxes.

    Rows are keypoints (inter-keypoint) or channels (inter-channel); a row costs at most 4. The other axis may differ.

    Args:
        at_once: Boxes at a time; the backward pass computes their matrices anew. No influence on the result.
    """
    boxes = mean_count(torch.full((), len(ours), device=ours.device), at_least=1)
    if not len(ours):
        return ours.sum()  # an empty sum: zero, and part of the graph
    pairs = zip(ours.split(at_once), theirs.split(at_once), strict=True)
    costs = [checkpoint(_relation_cost, a, b, use_reentrant=False, preserve_rng_state=False) for a, b in pairs]
    return torch.stack(costs).sum() / (boxes * ours.shape[1])


def _relation_cost(ours: Float[Tensor, "boxes rows _"], theirs: Float[Tensor, "boxes rows _"]) -> Float[Tensor, ""]:
    a, b = (F.normalize(features @ features.mT, dim=2, eps=1e-12) for features in (ours, theirs))
    return (a - b).square().sum()
