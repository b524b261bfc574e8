import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from dualdistill.geometry.cameras import bev_augmentation, frustum, image_augmentation, lift, project
from dualdistill.geometry.transforms import invert_rigid, rigid, rotation_from_quaternion, transform

quick = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31 - 1)
SIZE, FEATURES = (64, 176), (4, 11)


def rig(seed: int, cameras: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Intrinsics, image augmentation, and camera to BEV, each for all cameras, float64."""
    generator = torch.Generator().manual_seed(seed)
    quaternion = torch.randn(cameras, 4, generator=generator, dtype=torch.float64)
    shift = torch.randn(cameras, 3, generator=generator, dtype=torch.float64)
    focal, *draws = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
    intrinsics = torch.tensor(
        [[900 + 400 * focal, 0, 816.3], [0, 900 + 300 * focal, 491.5], [0, 0, 1]], dtype=torch.float64
    )
    augmentation = image_augmentation(
        resize=0.09 + 0.05 * draws[0],
        crop=(20 * draws[1], 20 * draws[2]),
        size=SIZE,
        flip=draws[3] < 0.5,
        rotate_deg=10.8 * draws[4] - 5.4,
        dtype=torch.float64,
    )
    bev_from_camera = rigid(rotation_from_quaternion(quaternion), shift)
    return intrinsics.expand(cameras, 3, 3), augmentation.expand(cameras, 4, 4), bev_from_camera


def test_the_frustum_spans_from_the_first_to_the_last_pixel_at_every_depth():
    depths = torch.tensor([2.0, 2.5, 3.0])
    rays = frustum((256, 704), (16, 44), depths)
    assert rays.shape == (3, 16, 44, 3)
    assert rays[0, 0, 0].tolist() == [0, 0, 2]
    assert rays[2, -1, -1].tolist() == [703, 255, 3]
    assert_close(rays[1, 1, 1], torch.tensor([703 / 43, 17.0, 2.5]))
    assert torch.equal(rays[..., 2], depths[:, None, None].expand(3, 16, 44))


@quick
@given(seeds)
def test_lifting_and_projecting_again_is_where_we_started(seed):
    intrinsics, augmentation, bev_from_camera = rig(seed)
    rays = frustum(SIZE, FEATURES, torch.arange(2.0, 40.0, 4.0, dtype=torch.float64))
    points_bev = lift(rays, intrinsics, augmentation, bev_from_camera)
    points_camera = transform(invert_rigid(bev_from_camera), points_bev.flatten(1, 3))
    again = transform(augmentation, project(points_camera, intrinsics))
    assert_close(again, rays.flatten(0, 2).expand(3, -1, -1), atol=1e-6, rtol=0)


@quick
@given(seeds)
def test_augmenting_bev_moves_the_lifted_points_along(seed):
    intrinsics, augmentation, bev_from_camera = rig(seed)
    rays = frustum(SIZE, FEATURES, torch.tensor([1.0, 10.0, 59.0], dtype=torch.float64))
    bev = bev_augmentation(angle=seed % 7, scale=1.05, flip_x=seed % 2 == 0, flip_y=seed % 3 == 0, dtype=torch.float64)
    moved = lift(rays, intrinsics, augmentation, bev @ bev_from_camera).flatten(1, 3)
    still = lift(rays, intrinsics, augmentation, bev_from_camera).flatten(1, 3)
    assert_close(moved, transform(bev.expand(3, 4, 4), still))


@quick
@given(seeds)
def test_single_precision_is_good_to_a_millimetre(seed):
    exact = rig(seed)
    rays = frustum(SIZE, FEATURES, torch.tensor([2.0, 57.5], dtype=torch.float64))
    rough = lift(rays.float(), *(matrix.float() for matrix in exact))
    assert rough.dtype == torch.float32
    assert_close(rough.double(), lift(rays, *exact), atol=1e-3, rtol=0)


def test_a_feature_straight_ahead_lies_on_the_optical_axis():
    intrinsics = torch.tensor([[100.0, 0, 5], [0, 100, 3], [0, 0, 1]])
    bev_from_camera = torch.tensor([[0.0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 2], [0, 0, 0, 1]])
    points = lift(frustum((7, 11), (7, 11), torch.tensor([4.0])), intrinsics, torch.eye(4), bev_from_camera)
    assert_close(points[0, 3, 5], torch.tensor([5.0, 0, 2]))
    assert points[0, 3, 6, 1] < 0  # to the right of the image is to the right of the car
    assert points[0, 4, 5, 2] < 2  # down is down


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_any_batch_of_cameras_is_lifted_like_each_alone(batch):
    count = math.prod(batch)
    matrices = [matrix.unflatten(0, batch) if batch else matrix[0] for matrix in rig(5, max(count, 1))]
    rays = frustum(SIZE, FEATURES, torch.tensor([3.0, 30.0], dtype=torch.float64))
    points = lift(rays, *matrices)
    assert points.shape == (*batch, 2, *FEATURES, 3)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in batch)).view(count, -1) if batch else []:
        alone = lift(rays, *(matrix[tuple(index)] for matrix in matrices))
        assert_close(points[tuple(index)], alone)


def test_lifting_is_not_rounded_under_autocast():
    matrices = [matrix.float() for matrix in rig(1)]
    rays = frustum(SIZE, FEATURES, torch.tensor([57.5]))
    exact = lift(rays, *matrices)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lift(rays, *matrices), exact)
