"""Upright boxes: corners, transforms, containment.

Angles and containment are computed in float64 whatever the boxes' type: a box edge must not move with
autocast, nor with the thousand metres of a global coordinate.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dualdistill.structures import Boxes

_PAIRS_AT_ONCE = 1 << 21
"""Pairs of box and point (or cell) tested in one go: bounds the float64 temporaries to tens of megabytes."""


def wrap_angle(angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Angle in [-pi, pi), radians."""
    wrapped = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    # just below -pi the remainder rounds up to a full turn
    return torch.where(wrapped >= math.pi, wrapped - 2 * math.pi, wrapped).clamp(min=-math.pi)


def footprints(boxes: Boxes) -> Float[Tensor, "boxes 5"]:
    """Rectangles of the boxes in BEV: x, y, length, width (metres), yaw (radians, counter-clockwise)."""
    return torch.cat([boxes.center[:, :2], boxes.size[:, :2], boxes.yaw[:, None]], dim=1)


def bev_corners(boxes: Boxes) -> Float[Tensor, "boxes 4 2"]:
    """Corners of the footprints, metres, clockwise: front left, front right, rear right, rear left.

    The edge from corner 0 to corner 1 is the front: the box heads from its centre to the middle of that edge.
    """
    length, width = (boxes.size[:, :2] / 2).unbind(dim=1)
    along = torch.stack([length, length, -length, -length], dim=1)  # boxes 4
    left = torch.stack([width, -width, -width, width], dim=1)
    cos, sin = boxes.yaw.cos()[:, None], boxes.yaw.sin()[:, None]
    turned = torch.stack([along * cos - left * sin, along * sin + left * cos], dim=-1)
    return boxes.center[:, None, :2] + turned


def corners(boxes: Boxes) -> Float[Tensor, "boxes 8 3"]:
    """Corners in space, metres: the four of `bev_corners` at the bottom, then the four at the top.

    Corners 0, 1, 5, 4 are the front face.
    """
    xy = bev_corners(boxes).repeat(1, 2, 1)
    half = boxes.size[:, 2] / 2
    z = boxes.center[:, 2, None] + torch.stack([-half] * 4 + [half] * 4, dim=1)
    return torch.cat([xy, z[..., None]], dim=-1)


def transform_boxes(b_from_a: Float[Tensor, "4 4"], boxes: Boxes) -> Boxes:
    """Boxes of frame `a` in frame `b`: sizes and velocities are scaled, yaw follows the heading vector.

    `b_from_a` is a rotation about z, uniform scale, axis flips and translation, in any combination, or a
    rotation that leaves boxes nearly upright (LiDAR to global): then yaw and velocity are those of the
    vectors as seen from above. Yaw comes back in [-pi, pi), an unknown (NaN) velocity stays unknown. The
    result has the wider of the types of the matrix and the boxes.
    """
    dtype = torch.promote_types(b_from_a.dtype, boxes.center.dtype)
    linear, translation = b_from_a[:3, :3].double(), b_from_a[:3, 3].double()
    scale = torch.linalg.det(linear).abs().pow(1 / 3)
    yaw = boxes.yaw.double()
    heading = torch.stack([yaw.cos(), yaw.sin()], dim=-1) @ linear[:2, :2].mT
    return replace(
        boxes,
        center=(boxes.center.double() @ linear.mT + translation).to(dtype),
        size=(boxes.size.double() * scale).to(dtype),
        yaw=wrap_angle(torch.atan2(heading[:, 1], heading[:, 0]).to(dtype)),
        velocity=(boxes.velocity.double() @ linear[:2, :2].mT).to(dtype),
    )


def points_in_boxes(points: Float[Tensor, "points 3"], boxes: Boxes) -> Bool[Tensor, "boxes points"]:
    """Mask of the points inside each box; faces belong to the box.

    In a frame where the boxes are truly upright (global), the counts are nuScenes' `num_lidar_pts`; a
    LIDAR_TOP frame is tilted against it by a degree or so, which moves points across the faces.
    """
    if not len(boxes) or not len(points):
        return torch.zeros(len(boxes), len(points), dtype=torch.bool, device=points.device)
    # relative to one of the boxes, so that float64 has its digits where the boxes are
    origin = boxes.center[0].double()
    center, half, yaw = boxes.center.double() - origin, boxes.size.double() / 2, boxes.yaw.double()
    cos, sin = yaw.cos(), yaw.sin()
    reach = half[:, :2].norm(dim=1) + 1e-6
    at_once = max(1, _PAIRS_AT_ONCE // len(boxes))

    def held(some: Tensor) -> Tensor:
        # sorted by x, the points whose x is near that of a box follow each other
        some = some.double() - origin
        x, order = some[:, 0].contiguous().sort()
        first = torch.searchsorted(x, center[:, 0] - reach)
        count = torch.searchsorted(x, center[:, 0] + reach, right=True) - first
        box = torch.arange(len(yaw), device=x.device).repeat_interleave(count)
        rank = torch.arange(len(box), device=x.device) - (count.cumsum(0) - count - first).index_select(0, box)
        point = order.index_select(0, rank)

        dx, dy, dz = (some.index_select(0, point) - center.index_select(0, box)).unbind(dim=1)
        c, s, (length, width, height) = cos[box], sin[box], half.index_select(0, box).unbind(dim=1)
        along, left = dx * c + dy * s, dy * c - dx * s
        inside = (along.abs() <= length) & (left.abs() <= width) & (dz.abs() <= height)
        mask = torch.zeros(len(yaw), len(some), dtype=torch.bool, device=x.device)
        mask[box[inside], point[inside]] = True
        return mask

    return torch.cat([held(some) for some in points.split(at_once)], dim=1)
