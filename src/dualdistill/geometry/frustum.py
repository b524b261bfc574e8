"""The frustum: every image feature cell at every depth, and its place in BEV (docs/methods/bevdepth.md#frustum)."""

import torch
from jaxtyping import Float
from torch import Tensor


def frustum(
    image_size: tuple[int, int], feature_size: tuple[int, int], depths: Float[Tensor, "depth"]
) -> Float[Tensor, "depth h w 3"]:
    """Frustum points (u, v, depth) of every feature cell at every depth, in pixels of the network image and metres.

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
