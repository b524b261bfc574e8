import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dualdistill.ops.voxelize import linear_max, scatter_max

SIZES = [[1], [7], [1, 1, 1], [3, 1, 200, 2], [20_000], [1] * 9_000, [8_192, 1, 8_191, 3, 1]]


@given(st.integers(0, 2**31 - 1), st.sampled_from(SIZES))
def test_it_is_the_maximum_of_the_projected_members_and_so_is_its_gradient(seed, sizes):
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor(sizes)
    rows = torch.randn(int(size.sum()), 3, generator=generator, dtype=torch.float64)
    plain = torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    ours = plain.detach().clone().requires_grad_()
    group = torch.arange(len(size)).repeat_interleave(size)
    expected = scatter_max(rows @ plain.T, group, len(size))
    largest = linear_max(rows, ours, size.cumsum(0) - size)
    assert_close(largest, expected)
    upstream = torch.randn(largest.shape, generator=generator, dtype=torch.float64)
    largest.backward(upstream)
    expected.backward(upstream)
    assert_close(ours.grad, plain.grad)


def test_gradients_are_right():
    rows, weight = torch.randn(6, 3).double(), torch.randn(4, 3).double().requires_grad_()
    start = torch.tensor([0, 1, 4])
    assert torch.autograd.gradcheck(lambda w: linear_max(rows, w, start), weight)


def test_no_group_has_no_maximum():
    weight = torch.randn(4, 3, requires_grad=True)
    largest = linear_max(torch.zeros(0, 3), weight, torch.zeros(0, dtype=torch.long))
    assert largest.shape == (0, 4)
    largest.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


@pytest.mark.parametrize("equal", [1, 5])
def test_of_equal_members_one_takes_the_gradient(equal):
    weight = torch.ones(1, 1, requires_grad=True)
    linear_max(torch.full((equal, 1), 2.0), weight, torch.zeros(1, dtype=torch.long)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.item() == 2.0
