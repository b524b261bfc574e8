"""Camera inputs of the depth networks: one row of numbers a camera."""

import torch
from jaxtyping import Float
from torch import Tensor


def pose_vector(
    intrinsics: Float[Tensor, "batch cam 3 3"],
    augmented_from_image: Float[Tensor, "batch cam 4 4"],
    bev_from_camera: Float[Tensor, "batch cam 4 4"],
) -> Float[Tensor, "batch*cam 33"]:
    """Camera vector of 33 numbers: intrinsics, image augmentation (3x3, then translation), camera pose in the augmented
    BEV frame (3x3, then translation); matrices row by row (docs/methods/bevdepth.md#gated-depth-network)."""
    parts = (
        intrinsics.flatten(-2),
        augmented_from_image[..., :3, :3].flatten(-2),
        augmented_from_image[..., :3, 3],
        bev_from_camera[..., :3, :3].flatten(-2),
        bev_from_camera[..., :3, 3],
    )
    return torch.cat(parts, dim=-1).flatten(0, 1)


def calibration_vector(
    intrinsics: Float[Tensor, "batch cam 3 3"],
    augmented_from_image: Float[Tensor, "batch cam 4 4"],
    bev_from_camera: Float[Tensor, "batch cam 4 4"],
    augmented_from_bev: Float[Tensor, "batch 4 4"],
) -> Float[Tensor, "batch*cam 27"]:
    """Camera vector of 27 numbers: fx, fy, cx, cy, six of the image augmentation, five of the BEV augmentation, and the
    camera pose before BEV augmentation (3x4, row by row) (docs/methods/bevdepth.md#official-depth-network)."""
    k, a = intrinsics, augmented_from_image
    b = augmented_from_bev[:, None].expand_as(bev_from_camera)
    pose = torch.linalg.solve_ex(b, bev_from_camera)[0]  # `solve` would wait for the device to check for errors
    scalars = (
        *(k[..., 0, 0], k[..., 1, 1], k[..., 0, 2], k[..., 1, 2]),
        *(a[..., 0, 0], a[..., 0, 1], a[..., 0, 3], a[..., 1, 0], a[..., 1, 1], a[..., 1, 3]),
        *(b[..., 0, 0], b[..., 0, 1], b[..., 1, 0], b[..., 1, 1], b[..., 2, 2]),
    )
    return torch.cat([torch.stack(scalars, dim=-1), pose[..., :3, :].flatten(-2)], dim=-1).flatten(0, 1)
