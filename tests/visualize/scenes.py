"""Boxes and cameras with round numbers, shared by the drawing tests."""

import torch
from torch import Tensor

from dualdistill.geometry.transforms import rigid
from dualdistill.structures import Boxes
from dualdistill.visualize.cameras import View

BEV_FROM_FORWARD_CAMERA = rigid(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]), torch.zeros(3))
"""A camera at the origin that looks along +y: right is +x, down is -z."""


def boxes(*rows: tuple[float, ...], label: int = 0, score: list[float] | None = None) -> Boxes:
    """Boxes from rows of x, y, z, length, width, height, yaw."""
    table = torch.tensor(rows)
    return Boxes(
        center=table[:, :3],
        size=table[:, 3:6],
        yaw=table[:, 6],
        velocity=torch.zeros(len(rows), 2),
        label=torch.full((len(rows),), label),
        score=None if score is None else torch.tensor(score),
    )


def pinhole(focal: float, width: int, height: int) -> Tensor:
    return torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def forward_view(augmented_from_image: Tensor | None = None) -> View:
    """Focal length 100 px, principal point (100, 50)."""
    return View(
        intrinsics=pinhole(100.0, 200, 100),
        augmented_from_image=torch.eye(4) if augmented_from_image is None else augmented_from_image,
        camera_from_bev=torch.linalg.inv(BEV_FROM_FORWARD_CAMERA),
    )
