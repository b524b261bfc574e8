"""Definitions that tests compare with, and the conventions of other code bases."""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dualdistill.geometry.boxes import footprints, wrap_angle
from dualdistill.geometry.grid import BevGrid
from dualdistill.structures import Boxes

_PAIRS_AT_ONCE = 1 << 21


def rotation_about_z(angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """Counter-clockwise rotation in the x-y plane, radians."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rows = ((cos, -sin, zero), (sin, cos, zero), (zero, zero, one))
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def box_index_map(
    grid: BevGrid, boxes: Boxes, test_point: Literal["center", "corner"] = "center"
) -> Int[Tensor, "y x"]:
    """Index of the first box whose footprint holds each cell's test point, -1 where none does.

    Height plays no part; edges belong to the footprint.

    Args:
        test_point: The centre of a cell, or its lower corner as in the released code, which moves every mask
            by half a cell (docs/methods/dualdistill.md#foreground-mask).
    """
    device, shift = boxes.center.device, 0.5 if test_point == "center" else 0.0
    nobody = len(boxes)
    owner = torch.full(grid.shape, nobody, device=device)
    x = grid.x_min + (torch.arange(grid.width, device=device, dtype=torch.float64) + shift) * grid.cell
    y = grid.y_min + (torch.arange(grid.height, device=device, dtype=torch.float64)[:, None] + shift) * grid.cell
    rectangles = footprints(boxes).double().T[..., None, None]
    at_once = max(1, _PAIRS_AT_ONCE // (grid.width * grid.height))
    for first in range(0, nobody, at_once):
        center_x, center_y, length, width, yaw = rectangles[:, first : first + at_once]  # boxes 1 1, each
        dx, dy = x - center_x, y - center_y
        inside = (dx * yaw.cos() + dy * yaw.sin()).abs() <= length / 2  # boxes y x
        inside &= (dy * yaw.cos() - dx * yaw.sin()).abs() <= width / 2
        index = torch.arange(first, first + len(yaw), device=device)[:, None, None]
        owner = torch.minimum(owner, torch.where(inside, index, nobody).amin(dim=0))
    return torch.where(owner == nobody, -1, owner)


def boxes_from_legacy(legacy: Float[Tensor, "boxes 9"], label: Int[Tensor, "boxes"]) -> Boxes:
    """Boxes from those of mmdet3d 0.x: x, y, z of the bottom, width, length, height, theta, vx, vy
    (docs/methods/centerpoint.md#boxes).

    Legacy theta is clockwise and zero where the box heads along -y: yaw = -theta - pi/2.
    """
    x, y, bottom, width, length, height, theta, vx, vy = legacy.unbind(dim=1)
    return Boxes(
        center=torch.stack([x, y, bottom + height / 2], dim=1),
        size=torch.stack([length, width, height], dim=1),
        yaw=wrap_angle(-theta - math.pi / 2),
        velocity=torch.stack([vx, vy], dim=1),
        label=label,
    )


def legacy_from_boxes(boxes: Boxes) -> Float[Tensor, "boxes 9"]:
    """Boxes of mmdet3d 0.x, theta in [-pi, pi): the inverse of `boxes_from_legacy`."""
    x, y, z = boxes.center.unbind(dim=1)
    length, width, height = boxes.size.unbind(dim=1)
    theta = wrap_angle(-boxes.yaw - math.pi / 2)
    vx, vy = boxes.velocity.unbind(dim=1)
    return torch.stack([x, y, z - height / 2, width, length, height, theta, vx, vy], dim=1)
