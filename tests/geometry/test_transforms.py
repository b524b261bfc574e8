import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from dualdistill.geometry.transforms import (
    invert_rigid,
    quaternion_from_rotation,
    rigid,
    rotation_from_quaternion,
    transform,
)
from tests.geometry.reference import rotation_about_z

quick = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31 - 1)
angles = st.floats(-10, 10)


def random_rigid(generator: torch.Generator, *batch: int) -> Tensor:
    quaternion = torch.randn(*batch, 4, generator=generator, dtype=torch.float64)
    translation = 100 * torch.randn(*batch, 3, generator=generator, dtype=torch.float64)
    return rigid(rotation_from_quaternion(quaternion), translation)


def random_points(generator: torch.Generator, *batch: int) -> Tensor:
    return 50 * torch.randn(*batch, 7, 3, generator=generator, dtype=torch.float64)


@quick
@given(seeds)
def test_there_and_back_is_where_we_started(seed):
    generator = torch.Generator().manual_seed(seed)
    b_from_a, points_a = random_rigid(generator, 2), random_points(generator, 2)
    assert_close(transform(invert_rigid(b_from_a), transform(b_from_a, points_a)), points_a)


@quick
@given(seeds)
def test_two_steps_are_the_step_of_their_product(seed):
    generator = torch.Generator().manual_seed(seed)
    c_from_b, b_from_a, points_a = random_rigid(generator), random_rigid(generator), random_points(generator)
    assert_close(transform(c_from_b @ b_from_a, points_a), transform(c_from_b, transform(b_from_a, points_a)))


@quick
@given(seeds)
def test_a_transform_is_what_the_matrix_does_to_homogeneous_columns(seed):
    generator = torch.Generator().manual_seed(seed)
    b_from_a, points_a = random_rigid(generator), random_points(generator)
    columns = torch.cat([points_a, torch.ones(len(points_a), 1, dtype=torch.float64)], dim=1).T
    assert_close(transform(b_from_a, points_a), (b_from_a @ columns)[:3].T)


@quick
@given(seeds)
def test_rotations_keep_lengths_and_handedness(seed):
    rotation = random_rigid(torch.Generator().manual_seed(seed), 3)[:, :3, :3]
    identity = torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
    assert_close(rotation @ rotation.mT, identity)
    assert_close(torch.linalg.det(rotation), torch.ones(3, dtype=torch.float64))


@quick
@given(seeds)
def test_rigid_inverse_is_the_inverse(seed):
    b_from_a = random_rigid(torch.Generator().manual_seed(seed), 4)
    assert_close(invert_rigid(b_from_a), b_from_a.inverse())


@quick
@given(angles)
def test_a_quaternion_about_z_is_the_rotation_about_z(angle):
    quaternion = torch.tensor([math.cos(angle / 2), 0, 0, math.sin(angle / 2)], dtype=torch.float64)
    expected = rotation_about_z(torch.tensor(angle, dtype=torch.float64))
    assert_close(rotation_from_quaternion(quaternion), expected)
    assert_close(rotation_from_quaternion(-3 * quaternion), expected)  # sign and length mean nothing


def test_a_quarter_turn_about_z_takes_x_to_y_and_y_to_minus_x():
    quarter = rotation_about_z(torch.tensor(math.pi / 2))
    assert_close(quarter @ torch.eye(3), torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), atol=1e-7, rtol=0)


def test_a_quaternion_about_x_takes_y_to_z():
    quaternion = torch.tensor([1.0, 1, 0, 0])
    z = rotation_from_quaternion(quaternion) @ torch.tensor([0.0, 1, 0])
    assert_close(z, torch.tensor([0.0, 0, 1]), atol=1e-7, rtol=0)


@given(st.tuples(*[st.integers(-3, 3)] * 4).filter(any))
def test_the_quaternion_of_a_rotation_is_one_of_its_two(quaternion: tuple[int, int, int, int]) -> None:
    """Half turns, where formulas that divide by w fail, among them."""
    rotation = rotation_from_quaternion(torch.tensor(quaternion, dtype=torch.float64))
    again = quaternion_from_rotation(rotation)
    assert again[0] >= 0
    assert_close(rotation_from_quaternion(again), rotation, atol=1e-12, rtol=0)
