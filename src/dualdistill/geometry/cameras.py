"""Image and BEV augmentation as transforms, and the pinhole camera."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def image_augmentation(
    *,
    resize: float,
    crop: tuple[float, float],
    size: tuple[int, int],
    flip: bool,
    rotate_deg: float,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "4 4"]:
    """Matrix `augmented_from_image` of resize, crop, mirror, rotate, in that order
    (docs/methods/bevdepth.md#image-augmentation-matrix).

    It acts on (u, v, depth, 1), pixels and metres, and leaves the depth alone.

    Args:
        resize: Nominal factor, also where the resized image was truncated to whole pixels.
        crop: (x, y) of the crop's first pixel in the resized image.
        size: (height, width) of the crop, the network's image.
        flip: Mirror left and right.
        rotate_deg: Counter-clockwise on the displayed image, about the centre of the crop (as in PIL).
    """
    height, width = size
    middle = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    linear = torch.eye(2, dtype=torch.float64) * resize
    offset = -torch.tensor(crop, dtype=torch.float64)
    if flip:
        mirror = torch.diag(torch.tensor([-1.0, 1.0], dtype=torch.float64))
        linear = mirror @ linear
        offset = mirror @ offset + torch.tensor([width, 0.0], dtype=torch.float64)
    cos, sin = math.cos(math.radians(rotate_deg)), math.sin(math.radians(rotate_deg))
    turn = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)  # v points down
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] = turn @ linear
    matrix[:2, 3] = turn @ (offset - middle) + middle
    return matrix.to(dtype)


def bev_augmentation(
    *, angle: float, scale: float, flip_x: bool, flip_y: bool, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "4 4"]:
    """Matrix `augmented_from_bev`: rotate about z, scale, then mirror
    (docs/methods/bevdepth.md#bev-augmentation-matrix).

    Args:
        angle: Radians, counter-clockwise.
        flip_x: x becomes -x.
        flip_y: y becomes -y.
    """
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    x, y = -1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0
    rows = ((x * cos, -x * sin, 0, 0), (y * sin, y * cos, 0, 0), (0, 0, scale, 0), (0, 0, 0, 1))
    return torch.tensor(rows, dtype=dtype)


def project(
    points_camera: Float[Tensor, "*batch points 3"], intrinsics: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch points 3"]:
    """Pixel (u, v) and depth (metres along the optical axis) of points in the camera frame (x right, y down).

    u and v are valid where the depth is positive; behind the camera they are mirrored, at depth 0 not finite.
    """
    with torch.autocast(points_camera.device.type, enabled=False):
        u, v, depth = (points_camera @ intrinsics.mT).unbind(dim=-1)
    return torch.stack([u / depth, v / depth, depth], dim=-1)
