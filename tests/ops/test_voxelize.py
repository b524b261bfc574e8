import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.voxelize import dynamic_voxelize, scatter_max, scatter_mean

quick = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31 - 1)
GRID, Z_RANGE = BevGrid(x_min=-3.0, y_min=-2.0, cell=0.5, width=12, height=8), (-1.0, 1.0)


@quick
@given(seeds)
def test_pillars_are_the_cells_with_points_in_them(seed):
    generator = torch.Generator().manual_seed(seed)
    xyz = 2 * torch.randn(60, 3, generator=generator)
    sample = torch.randint(3, (60,), generator=generator).sort().values
    pillars = dynamic_voxelize(xyz, sample, GRID, Z_RANGE, 5)

    expected: dict[tuple[int, ...], list[int]] = {}
    for index, (x, y, z) in enumerate(xyz.tolist()):
        column, row = int((x + 3) // 0.5), int((y + 2) // 0.5)
        if 0 <= column < 12 and 0 <= row < 8 and -1 <= z < 1:
            expected.setdefault((int(sample[index]), row, column), []).append(index)
    assert [tuple(cell) for cell in pillars.cells.tolist()] == sorted(expected)
    assert len(pillars) == len(expected)
    for number, cell in enumerate(sorted(expected)):
        assert pillars.kept[pillars.pillar == number].tolist() == expected[cell]


def test_lower_bounds_are_inside_and_upper_bounds_outside():
    borders = torch.tensor([[-3.0, -2, -1], [3, 0, 0], [0, 2, 0], [0, 0, 1], [-3.01, 0, 0], [0, 0, -1.01]])
    pillars = dynamic_voxelize(borders, torch.zeros(6, dtype=torch.long), GRID, Z_RANGE, 5)
    assert pillars.kept.tolist() == [0]
    assert pillars.cells.tolist() == [[0, 0, 0]]


def test_the_same_cell_of_two_samples_is_two_pillars():
    pillars = dynamic_voxelize(torch.zeros(2, 3), torch.tensor([0, 4]), GRID, Z_RANGE, 5)
    assert pillars.cells.tolist() == [[0, 4, 6], [4, 4, 6]]


def test_no_points_make_no_pillars():
    for xyz in (torch.zeros(0, 3), torch.full((3, 3), 99.0)):
        pillars = dynamic_voxelize(xyz, torch.zeros(len(xyz), dtype=torch.long), GRID, Z_RANGE, 5)
        assert (len(pillars), len(pillars.kept), pillars.cells.shape) == (0, 0, (0, 3))


@quick
@given(seeds)
def test_mean_and_max_are_those_of_each_group_and_zero_without_one(seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(30, 4, generator=generator)
    group = torch.randint(8, (30,), generator=generator)
    mean, largest = scatter_mean(values, group, 9), scatter_max(values, group, 9)
    for number in range(9):
        members = values[group == number]
        assert_close(mean[number], members.mean(dim=0) if len(members) else torch.zeros(4))
        assert_close(largest[number], members.amax(dim=0) if len(members) else torch.zeros(4))


def test_a_group_of_negative_values_has_a_negative_maximum():
    assert scatter_max(torch.tensor([[-3.0], [-1.0]]), torch.tensor([0, 0]), 1).tolist() == [[-1.0]]


def test_nothing_reduces_to_zeros_and_takes_a_gradient():
    nothing = torch.zeros(0, 4, requires_grad=True)
    for reduced in (
        scatter_mean(nothing, torch.zeros(0).long(), 3),
        scatter_max(nothing, torch.zeros(0).long(), 3),
    ):
        assert torch.equal(reduced, torch.zeros(3, 4))
        reduced.sum().backward()
    assert nothing.grad is not None


def test_gradients_are_right():
    group = torch.tensor([0, 2, 0, 2, 2, 4])
    values = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: scatter_mean(v, group, 5), values)
    assert torch.autograd.gradcheck(lambda v: scatter_max(v, group, 5), values)


@quick
@given(seeds)
def test_the_maximum_and_its_gradient_are_those_of_scatter_reduce(seed):
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(5, (30,), generator=generator)
    draws = torch.randint(-3, 4, (30, 4), generator=generator).float()  # full of equals
    ours, theirs = draws.clone().requires_grad_(), draws.clone().requires_grad_()
    index = group[:, None].expand_as(draws)
    # from -inf up: started at zero, PyTorch takes the start for one more winner where the maximum is zero
    expected = torch.full((6, 4), -torch.inf).scatter_reduce(0, index, theirs, reduce="amax")
    expected = expected.where(expected.isfinite(), 0.0)
    largest = scatter_max(ours, group, 6)
    assert torch.equal(largest, expected)
    upstream = torch.randn(6, 4, generator=generator)
    largest.backward(upstream)
    expected.backward(upstream)
    assert_close(ours.grad, theirs.grad)


def test_the_gradient_of_a_maximum_goes_to_it_and_is_shared_between_equals():
    values = torch.tensor([[1.0], [5.0], [5.0], [2.0]], requires_grad=True)
    scatter_max(values, torch.tensor([0, 0, 0, 1]), 2).sum().backward()
    assert values.grad is not None
    assert values.grad.flatten().tolist() == [0.0, 0.5, 0.5, 1.0]
