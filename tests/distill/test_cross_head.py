"""Cross-head response distillation, with a real CenterPoint head."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.distill.dualdistill import cross_head_losses
from dualdistill.distill.method import HeadCriterion
from dualdistill.distill.terms import RESPONSES, response_weights
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.center_training import center_targets
from dualdistill.models.head_criterion import CenterCriterion
from dualdistill.structures import HeadOutput, weighted_sum

WEIGHTS = response_weights(heatmap=1.0, box=0.25, velocity=0.2)


def test_the_teachers_judge_is_one_and_weights_name_what_it_says(make_pair):
    pair = make_pair()
    assert isinstance(pair.criterion, HeadCriterion)
    losses = pair.criterion.losses_of_features(
        lambda _: pair.teacher.predictions, pair.teacher.neck, pair.targets.boxes
    )
    assert losses.keys() == {*RESPONSES} == WEIGHTS.keys()
    assert pytest.approx(CenterHeadConfig().weights) == WEIGHTS


def test_the_released_temperature_is_a_threshold_at_0_445(make_pair):
    criterion = make_pair().criterion
    probabilities = torch.tensor([0.09, 0.11, 0.24, 0.26, 0.445, 0.446, 0.9])
    heatmap = torch.full((1, 10, 16, 16), -9.0)
    heatmap[0, 0, 1, 1:14:2] = probabilities.logit()  # cars of 1 m, well apart
    predictions = HeadOutput(heatmap=heatmap, regression=torch.zeros(1, 6, 10, 16, 16))
    for temperature, kept in ((1.0, 6), (0.5, 4), (0.1, 2)):
        (boxes,) = criterion.pseudo_boxes(predictions, temperature)
        assert_close(boxes.score.sort().values, probabilities[-kept:])


def in_cell_offsets(head, pair) -> HeadOutput:
    """What the head says, its centres kept inside the cell they were found in."""
    said = head(pair)
    regression = said.regression.clone()
    regression[:, :, :2] = regression[:, :, :2].sigmoid()
    return replace(said, regression=regression)


def test_the_teachers_own_map_finds_the_teachers_own_boxes(make_pair):
    pair = make_pair()

    def head(neck: Tensor) -> HeadOutput:
        return in_cell_offsets(pair.teacher.head, neck)

    neck = pair.teacher.neck.detach()
    teacher = replace(pair.teacher, predictions=head(neck), head=head)
    losses = cross_head_losses(teacher, neck, pair.targets, pair.criterion)
    assert len(pair.criterion.pseudo_boxes(teacher.predictions, 0.1)[0]) > 3
    for name in ("box/xy", "box/z", "box/size", "box/velocity"):
        assert losses[name] < 1e-4, name
    # The target's sine and cosine have unit norm, the prediction's need not.
    assert losses["box/yaw"] > 1e-2


def test_the_gradient_goes_through_the_frozen_head_into_the_students_map_alone(make_pair):
    pair = make_pair()
    before = {name: tensor.clone() for name, tensor in pair.teacher.head.state_dict().items()}
    aligned = torch.randn(2, 24, 16, 16, requires_grad=True)
    weighted_sum(cross_head_losses(pair.teacher, aligned, pair.targets, pair.criterion), WEIGHTS).backward()
    assert aligned.grad is not None
    assert aligned.grad.abs().sum() > 0
    for name, tensor in pair.teacher.head.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None for p in pair.teacher.head.parameters())
    assert all(p.grad is None for p in pair.student.head.parameters())
    assert pair.teacher.predictions.heatmap.grad is None


def test_no_pseudo_box_leaves_the_negative_focal_loss(make_pair):
    pair = make_pair()
    nothing = replace(pair.teacher.predictions, heatmap=torch.full((2, 10, 16, 16), -9.0))
    aligned = torch.randn(2, 24, 16, 16)
    losses = cross_head_losses(replace(pair.teacher, predictions=nothing), aligned, pair.targets, pair.criterion)
    p = pair.teacher.head(aligned).heatmap.sigmoid().clamp(1e-4, 1 - 1e-4)
    assert_close(losses["heatmap"], (-(1 - p).log() * p**2).sum(), rtol=1e-5, atol=0)
    assert all(losses[name] == 0 for name in RESPONSES if name.startswith("box/"))


def test_annotated_velocities_are_taught_in_metres_per_second(make_pair):
    pair = make_pair(batch=1, boxes=0)
    boxes = replace(
        make_pair(batch=1, boxes=1).targets.boxes[0],
        center=torch.tensor([[1.0, 1.0, 0.0]]),
        velocity=torch.tensor([[3.0, -4.0]]),
    )
    targets = replace(pair.targets, boxes=(boxes,), heatmap=torch.zeros(1, 10, 16, 16))

    def head(neck: Tensor) -> HeadOutput:
        said = pair.teacher.head(neck)
        regression = said.regression.clone()
        regression[:, :, 8], regression[:, :, 9] = 3.0, -4.0
        return replace(said, regression=regression)

    teacher = replace(pair.teacher, head=head)
    neck = pair.teacher.neck.detach()
    losses = cross_head_losses(teacher, neck, targets, pair.criterion, labels="ground_truth")
    assert losses["box/velocity"] == 0
    assert losses["box/z"] > 0
    unknown = replace(boxes, velocity=torch.full((1, 2), torch.nan))
    losses = cross_head_losses(teacher, neck, replace(targets, boxes=(unknown,)), pair.criterion, labels="ground_truth")
    assert losses["box/velocity"] == 0


def test_annotations_as_labels_cost_what_the_head_itself_would_be_charged(make_pair):
    pair = make_pair()
    aligned = torch.randn(2, 24, 16, 16)
    losses = cross_head_losses(pair.teacher, aligned, pair.targets, pair.criterion, labels="ground_truth")
    assert isinstance(pair.criterion, CenterCriterion)
    heatmap = center_targets(pair.targets.boxes, pair.criterion.grid, pair.criterion.config).heatmap
    assert torch.equal(heatmap, pair.targets.heatmap)
    assert_close(
        losses, pair.criterion.losses_of_features(lambda _: pair.teacher.head(aligned), aligned, pair.targets.boxes)
    )
