"""Relative depths and relations inside objects (docs/methods/tig_bev.md#worked-values)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from dualdistill.distill.tig_bev import (
    expected_depth,
    grid_positions,
    inner_depth_loss,
    keypoints,
    relation_loss,
    sample_map,
)
from dualdistill.geometry.boxes import bev_corners
from dualdistill.geometry.grid import BevGrid
from dualdistill.structures import Boxes

GRID = BevGrid.around(51.2, 0.8)
seeds = st.integers(0, 2**31 - 1)


def row(*values: float) -> Tensor:
    """Cells of one camera of one sample."""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def scene(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted depth, true depth and owner in a few cameras."""
    generator = torch.Generator().manual_seed(seed)
    depth = 60 * torch.rand(2, 2, 2, 6, 7, generator=generator)
    return depth[0], depth[1], torch.randint(-1, 3, (2, 2, 6, 7), generator=generator)


def box(x: float, y: float, length: float, width: float, yaw: float = 0.0) -> Boxes:
    return Boxes(
        center=torch.tensor([[x, y, 0.0]]),
        size=torch.tensor([[length, width, 1.5]]),
        yaw=torch.tensor([yaw]),
        velocity=torch.zeros(1, 2),
        label=torch.zeros(1, dtype=torch.long),
    )


# ---- inner depth ----


def test_the_worked_example_of_inner_depth():
    loss = inner_depth_loss(row(2, 3, 5, 9), row(2.5, 3.2, 4, 0), row(0, 0, 0, -1).long())
    assert_close(loss, torch.tensor(0.51))


def test_objects_and_cameras_are_told_apart():
    together = inner_depth_loss(
        row(2, 3, 5, 9, 2, 3, 5).expand(2, 3, 1, 7),
        row(2.5, 3.2, 4, 0, 2.5, 3.2, 4).expand(2, 3, 1, 7),
        row(0, 0, 0, -1, 4, 4, 4).long().expand(2, 3, 1, 7),
    )
    assert_close(together, torch.tensor(0.51))


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_inner_depth_is_what_loops_over_cameras_and_objects_find(seed):
    predicted, depth, owner = scene(seed)
    total, count = 0.0, 0
    for sample in range(2):
        for cam in range(2):
            for number in range(3):
                cells = owner[sample, cam] == number
                ours, theirs = predicted[sample, cam][cells], depth[sample, cam][cells]
                if len(ours):
                    best = (ours - theirs).abs().argmin()
                    total += ((ours - ours[best]) - (theirs - theirs[best])).square().sum().item()
                    count += len(ours)
    assert_close(inner_depth_loss(predicted, depth, owner).item(), total / max(1, count), rtol=1e-4, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, shift=st.floats(-5, 5))
def test_shifting_an_object_in_both_depths_changes_nothing(seed, shift):
    predicted, depth, owner = scene(seed)
    object_0 = (owner == 0) & (torch.arange(2)[:, None, None] == 1)  # in one camera of each sample
    moved = inner_depth_loss(predicted + shift * object_0, depth + shift * object_0, owner)
    assert_close(moved, inner_depth_loss(predicted, depth, owner), rtol=1e-4, atol=1e-4)


def test_shifting_predictions_alone_changes_nothing_while_the_reference_stays():
    depth, owner = row(2.5, 3.2, 4), row(0, 0, 0).long()
    assert_close(inner_depth_loss(row(2, 3, 5), depth, owner), inner_depth_loss(row(2.1, 3.1, 5.1), depth, owner))


def test_references_lone_cells_and_background_get_no_gradient():
    logits = torch.randn(1, 2, 16, 6, 7, requires_grad=True)
    depths = torch.arange(1.0, 65.0, 4.0)
    predicted, depth = expected_depth(logits, depths), 60 * torch.rand(1, 2, 6, 7)
    owner = torch.full((1, 2, 6, 7), -1)
    owner[0, 0, :3], owner[0, 1, 4, 4] = 1, 2  # three rows of one object, a lone cell of another
    inner_depth_loss(predicted, depth, owner).backward()
    reached = logits.grad.abs().sum(dim=2) > 0
    reference = (predicted - depth).abs()[0, 0, :3].argmin()
    expected = owner == 1
    expected[0, 0, :3].view(-1)[reference] = False
    assert torch.equal(reached, expected)


def test_true_depths_cost_nothing_and_nothing_costs_less():
    predicted, depth, owner = scene(0)
    assert inner_depth_loss(depth, depth, owner) == 0
    assert inner_depth_loss(predicted, depth, owner) > 0
    nothing = inner_depth_loss(predicted.requires_grad_(), depth, torch.full_like(owner, -1))
    assert nothing == 0
    nothing.backward()
    assert not predicted.grad.any()


def test_a_depth_that_is_not_a_number_is_passed_on_for_the_trainer_to_see():
    assert inner_depth_loss(row(torch.nan, torch.nan, 1), row(1, 2, 3), row(0, 0, 0).long()).isnan()


# ---- keypoints ----


def test_keypoints_are_a_lattice_whose_extremes_are_the_corners_of_the_enlarged_box():
    boxes = box(3, -7, 4.0, 2.0, yaw=0.4)
    points = keypoints(boxes, 24, 1.6)
    assert points.shape == (1, 576, 2)
    enlarged = bev_corners(box(3, -7, 7.2, 5.2, yaw=0.4))
    assert_close(points[:, [575, 552, 0, 23]], enlarged, rtol=0, atol=1e-5)
    along = keypoints(box(0, 0, 4.0, 2.0), 24, 1.6)[0].view(24, 24, 2)
    assert_close(along[:, 0, 0].diff(), torch.full((23,), 7.2 / 23), rtol=0, atol=1e-5)
    assert_close(along[0, :, 1].diff(), torch.full((23,), 5.2 / 23), rtol=0, atol=1e-5)


def test_a_map_of_coordinates_is_read_at_the_keypoints_themselves():
    coordinates = GRID.centers().permute(2, 0, 1)
    boxes = Boxes(
        center=torch.tensor([[0.0, 0, 0], [40, -30, 0], [-44, 44, 0]]),
        size=torch.tensor([[4.0, 2, 1.5], [11, 2.9, 3], [0.7, 0.7, 1.7]]),
        yaw=torch.tensor([0.3, -2.0, 1.0]),
        velocity=torch.zeros(3, 2),
        label=torch.zeros(3, dtype=torch.long),
    )
    points = keypoints(boxes, 24, 1.6)
    assert_close(sample_map(coordinates, points, GRID), points.mT, rtol=0, atol=1e-3)


def test_the_released_sampling_drifts_towards_the_upper_bounds():
    points = torch.tensor([[[-2.0, 0.0], [-48.0, 48.0]]])
    released = sample_map(GRID.centers().permute(2, 0, 1), points, GRID, "released").mT
    drift = 0.8 * GRID.coordinates(points) / 127
    assert_close(released - points, drift, rtol=0, atol=1e-3)
    index = (grid_positions(points, GRID, "released")[0, 0, 0] + 1) * 64 - 0.5
    assert_close(index, torch.tensor(61.484), rtol=0, atol=1e-3)
    assert_close((grid_positions(points, GRID)[0, 0, 0] + 1) * 64 - 0.5, torch.tensor(61.0), rtol=0, atol=1e-3)


def test_points_outside_are_read_at_the_border():
    features = torch.ones(1, 128, 128)
    outside = torch.tensor([[[-80.0, 0.4], [0.4, 51.2], [99.0, 99.0]]])
    # Half of a border's neighbourhood lies outside, where there is nothing; three quarters at a corner.
    assert_close(sample_map(features, outside, GRID).flatten(), torch.tensor([0.5, 0.5, 0.25]))


def test_other_sides_of_a_map_are_its_other_axes():
    wide = BevGrid(x_min=0.0, y_min=-4.0, cell=1.0, width=16, height=8)
    coordinates = wide.centers().permute(2, 0, 1)
    points = torch.tensor([[[3.2, -1.7], [12.9, 2.2]]])
    assert_close(sample_map(coordinates, points, wide), points.mT, rtol=0, atol=1e-4)


# ---- relations ----


def features(seed: int, chan: int = 6) -> Tensor:
    return torch.randn(3, chan, 20, generator=torch.Generator().manual_seed(seed))


def orthogonal(side: int) -> Tensor:
    return torch.linalg.qr(torch.randn(side, side, generator=torch.Generator().manual_seed(9)))[0]


def test_the_worked_example_of_relations():
    ours, theirs = torch.eye(2)[None], torch.ones(1, 2, 2)
    assert_close(100 * relation_loss(ours.mT, theirs.mT), torch.tensor(58.5786))
    assert_close(10 * relation_loss(ours, theirs), torch.tensor(5.8579), rtol=1e-4, atol=0)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, scale=st.floats(0.1, 10))
def test_relations_of_keypoints_know_no_scale_no_basis_of_channels_and_no_order(seed, scale):
    ours, theirs = features(seed), features(seed + 1, chan=4)
    loss = relation_loss(ours.mT, theirs.mT)
    per_box = torch.tensor([1.0, scale, 3.0])[:, None, None]
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    for a, b in (
        (per_box * ours, theirs),
        (ours, per_box * theirs),
        (orthogonal(6) @ ours, orthogonal(4) @ theirs),
        (ours[..., order], theirs[..., order]),
    ):
        assert_close(relation_loss(a.mT, b.mT), loss, rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_relations_of_channels_know_no_basis_of_keypoints_and_no_scale_of_the_teacher(seed):
    ours, theirs = features(seed), features(seed + 1)
    loss = relation_loss(ours, theirs)
    for a, b in ((ours @ orthogonal(20), theirs @ orthogonal(20)), (ours, 7.5 * theirs)):
        assert_close(relation_loss(a, b), loss, rtol=1e-4, atol=1e-5)


def test_a_row_costs_at_most_four_and_two_without_negative_features():
    ours = features(0)
    opposite = torch.tensor([1.0, -1.0] * 10) * torch.ones(3, 1, 20)  # every second keypoint turned round
    assert relation_loss(opposite.mT, torch.ones(3, 1, 20).mT) <= 4
    assert relation_loss(ours.relu().mT, features(1).relu().mT) <= 2
    apart = relation_loss(torch.eye(20).expand(3, 20, 20), torch.ones(3, 20, 20))
    assert 1.5 < apart <= 2
    assert relation_loss(ours, ours.clone()) < 1e-6


@pytest.mark.parametrize("at_once", [1, 2, 64])
def test_boxes_taken_in_turns_cost_and_pull_the_same(at_once):
    ours, theirs = features(0).requires_grad_(), features(1)
    relation_loss(ours, theirs, at_once).backward()
    whole = features(0).requires_grad_()
    a, b = (x @ x.mT for x in (whole, theirs))
    expected = (a / a.norm(dim=2, keepdim=True) - b / b.norm(dim=2, keepdim=True)).square().sum(dim=2).mean()
    expected.backward()
    assert_close(relation_loss(ours, theirs, at_once), expected, rtol=1e-5, atol=0)
    assert_close(ours.grad, whole.grad, rtol=1e-4, atol=1e-6)


def test_features_that_are_zero_cost_what_the_others_rows_weigh():
    zero = torch.zeros(1, 6, 20, requires_grad=True)
    loss = relation_loss(zero.mT, features(0)[:1].mT)
    assert_close(loss, torch.tensor(1.0))
    loss.backward()
    assert zero.grad.isfinite().all()
