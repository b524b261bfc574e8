"""Image and BEV augmentation as transforms, the pinhole camera, and the frustum of its features in BEV."""

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
    right, left = (-resize, crop[0] + width) if flip else (resize, -crop[0])
    linear = torch.diag(torch.tensor([right, resize], dtype=torch.float64))
    offset = torch.tensor([left, -crop[1]], dtype=torch.float64)
    cos, sin = math.cos(math.radians(rotate_deg)), math.sin(math.radians(rotate_deg))
    turn = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)  # v points down
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] = turn @ linear
    matrix[:2, 3] = turn @ (offset - middle) + middle
    return matrix.to(dtype)


def bev_augmentation(
    *, angle: float, scale: float, flip_x: bool, flip_y: bool, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "4 4"]:
    """Matrix `augmented_from_bev`: rotate about z by `angle` (radians, counter-clockwise), scale, then mirror
    (`flip_x`: x becomes -x) (docs/methods/bevdepth.md#bev-augmentation-matrix)."""
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


def frustum(
    image_size: tuple[int, int], feature_size: tuple[int, int], depths: Float[Tensor, "depth"]
) -> Float[Tensor, "depth h w 3"]:
    """Frustum points (u, v, depth) of every feature cell at every depth, in pixels of the network image and metres
    (docs/methods/bevdepth.md#frustum).

    The first and the last cell of a row sit on the first and the last pixel, not on the centres of their
    patches: the published weights were trained so.

    Args:
        image_size: (height, width) of the network image.
        feature_size: (height, width) of the feature map.
        depths: Metres along the optical axis; published models take the lower edges of their bins.
    """
    (height, width), (rows, columns) = image_size, feature_size
    u = torch.linspace(0, width - 1, columns, dtype=depths.dtype, device=depths.device)
    v = torch.linspace(0, height - 1, rows, dtype=depths.dtype, device=depths.device)
    depth, v, u = torch.meshgrid(depths, v, u, indexing="ij")
    return torch.stack([u, v, depth], dim=-1)


def lift(
    frustum: Float[Tensor, "depth h w 3"],
    intrinsics: Float[Tensor, "*batch 3 3"],
    augmented_from_image: Float[Tensor, "*batch 4 4"],
    bev_from_camera: Float[Tensor, "*batch 4 4"],
) -> Float[Tensor, "*batch depth h w 3"]:
    """Metric points of the frustum in the (augmented) BEV frame of each camera's matrices.

    An image augmentation leaves the depth alone, so the points are linear in (u·d, v·d, d): one 3x3 matrix
    and one translation a camera.
    """
    rows = torch.cat([augmented_from_image[..., :2, :], augmented_from_image[..., 3:, :]], dim=-2)
    homography = torch.cat([rows[..., :2], rows[..., 3:]], dim=-1).double()  # on (u, v, 1)
    # inv_ex: the checked inverse would wait for the device
    camera_from_augmented = torch.linalg.inv_ex(homography @ intrinsics.double()).inverse
    bev_from_augmented = (bev_from_camera[..., :3, :3].double() @ camera_from_augmented).to(frustum.dtype)
    rays = torch.cat([frustum[..., :2] * frustum[..., 2:], frustum[..., 2:]], dim=-1)
    with torch.autocast(frustum.device.type, enabled=False):
        points = rays.flatten(0, 2) @ bev_from_augmented.mT
    points = points + bev_from_camera[..., None, :3, 3].to(frustum.dtype)
    return points.unflatten(-2, frustum.shape[:3])
