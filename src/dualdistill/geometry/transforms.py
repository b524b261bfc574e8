"""Rigid and affine transforms, named `target_from_source`, as 4x4 matrices on column vectors."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def transform(
    b_from_a: Float[Tensor, "*batch 4 4"], points_a: Float[Tensor, "*batch points 3"]
) -> Float[Tensor, "*batch points 3"]:
    """Points (metres) of frame `a` in frame `b`."""
    return points_a @ b_from_a[..., :3, :3].mT + b_from_a[..., None, :3, 3]


def rigid(rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4 4"]:
    """The 4x4 matrix of a 3x3 linear part (rotation, scale, flip) followed by a translation."""
    matrix = torch.zeros(*rotation.shape[:-2], 4, 4, dtype=rotation.dtype, device=rotation.device)
    matrix[..., :3, :3] = rotation
    matrix[..., :3, 3] = translation
    matrix[..., 3, 3] = 1.0
    return matrix


def invert_rigid(b_from_a: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverse of a rotation plus translation (no scale, no flip), by transposition."""
    rotation = b_from_a[..., :3, :3].mT
    return rigid(rotation, -(rotation @ b_from_a[..., :3, 3:]).squeeze(-1))


def rotation_from_quaternion(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrix of quaternions (w, x, y, z) as nuScenes stores them; they are normalised first."""
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def quaternion_from_rotation(rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "4"]:
    """Unit quaternion (w, x, y, z), w >= 0, of a rotation matrix; exact to rounding at every angle."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation.tolist()
    # Four times the outer product of the quaternion with itself: its largest row loses no digits.
    rows = (
        (1 + xx + yy + zz, zy - yz, xz - zx, yx - xy),
        (zy - yz, 1 + xx - yy - zz, yx + xy, xz + zx),
        (xz - zx, yx + xy, 1 - xx + yy - zz, zy + yz),
        (yx - xy, xz + zx, zy + yz, 1 - xx - yy + zz),
    )
    row = max(enumerate(rows), key=lambda item: item[1][item[0]])[1]
    length = math.copysign(math.hypot(*row), row[0])
    return rotation.new_tensor([value / length for value in row])
