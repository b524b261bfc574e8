"""LabelDistill: partition, masks, feature and response losses (docs/methods/labeldistill.md#worked-values)."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from dualdistill.distill.labeldistill import (
    LabelDistillConfig,
    adaptor,
    masked_squares,
    object_mask,
    partition,
    response_losses,
)
from dualdistill.distill.method import DistillerInputs
from dualdistill.ops.focal import gaussian_focal
from dualdistill.structures import HeadOutput, weighted_sum
from tests.distill.conftest import GRID

RESPONSE_ONLY = LabelDistillConfig(label_weight=None, lidar_weight=None)


def losses_of(config: LabelDistillConfig, pair):
    return pair.build(config)(pair.teacher, pair.student, pair.targets)


def of(losses, guide: str):
    return sum(loss for name, loss in losses.items() if name.startswith(f"{guide}/"))


# Feature losses


def test_equal_maps_cost_nothing_and_an_empty_mask_costs_exactly_nothing():
    features, mask = torch.randn(2, 8, 6, 6), torch.rand(2, 1, 6, 6)
    assert masked_squares(features - features, mask) == 0
    assert masked_squares(features, torch.zeros(2, 1, 6, 6)) == 0


def test_a_constant_difference_costs_its_square_times_the_channels():
    assert_close(masked_squares(torch.full((2, 128, 6, 6), 0.5), torch.ones(2, 1, 6, 6)).item(), 128 * 0.25)


def test_a_batch_twice_over_costs_the_same():
    error, mask = torch.randn(2, 8, 6, 6), torch.rand(2, 1, 6, 6)
    assert_close(masked_squares(torch.cat([error, error]), torch.cat([mask, mask])), masked_squares(error, mask))


@pytest.mark.parametrize(("cell", "half", "value"), [(64, 32, 0.2421), (20, 10, 0.7077)])
def test_masks_are_resized_corner_on_corner(cell, half, value):
    heat = torch.zeros(1, 10, 128, 128)
    heat[0, 3, cell, cell] = 1
    mask = object_mask(heat, torch.Size((64, 64)))
    assert_close(mask[0, 0, half, half].item(), value, rtol=0, atol=5e-5)


def test_a_cell_where_classes_meet_counts_for_both():
    heat = torch.zeros(1, 10, 4, 4)
    heat[0, [2, 3], 1, 1] = 0.75
    assert object_mask(heat, torch.Size((4, 4)))[0, 0, 1, 1] == 1.5


# Partition


@pytest.mark.parametrize("guide", ["label", "lidar"])
@pytest.mark.parametrize("split", ["released", "key_frame"])
def test_each_guide_moves_its_own_third_only(guide, split, make_pair):
    pair, config = make_pair(), LabelDistillConfig(partition=split)
    of(losses_of(config, pair), guide).backward()
    for level, features in (("canvas", pair.student.canvas), ("stage0", pair.student.stages[0])):
        own = partition(level, replace_maps_by_channel_numbers(pair.student), config)[guide][0, :, 0, 0].long()
        others = [c for c in range(features.shape[1]) if c not in own]
        assert features.grad[:, own].any(), level
        assert not features.grad[:, others].any(), level


def replace_maps_by_channel_numbers(student):
    def numbers(features):
        return torch.arange(features.shape[1]).float()[None, :, None, None].expand_as(features)

    return replace(student, canvas=numbers(student.canvas), stages=tuple(map(numbers, student.stages)))


@pytest.mark.parametrize(("split", "reaches"), [("released", False), ("key_frame", True)])
def test_as_released_a_detached_past_can_keep_the_lidar_from_the_student(split, reaches, make_pair):
    """Five frames as published: at the first level the LiDAR's third is all past
    (docs/methods/labeldistill.md#partition)."""
    pair = make_pair()
    frames = torch.randn(2, 5, 6, 16, 16)
    now = frames[:, 0].clone().requires_grad_()
    student = replace(pair.student, canvas=torch.cat([now, frames[:, 1:].flatten(1, 2)], dim=1), frames=5)
    pair = replace(pair, student=student)
    config = LabelDistillConfig(
        label_weight=None, response=None, partition=split, student_levels=("canvas",), teacher_stages=(1,)
    )
    loss = losses_of(config, pair)["lidar/canvas"]
    loss.backward()
    assert (now.grad is not None and bool(now.grad.any())) == reaches


# Responses


@pytest.mark.parametrize(("target", "value"), [(1.0, 0.0010536), (0.9, 1.865e-4), (0.5, 0.11657), (0.0, 1.8651)])
def test_the_focal_loss_of_a_sure_cell_is_the_one_worked_out_by_hand(target, value):
    assert_close(gaussian_focal(torch.tensor(0.9), torch.tensor(target)).item(), value, rtol=1e-4, atol=0)


def test_as_released_the_heat_map_is_only_ever_suppressed(make_pair):
    pair = make_pair()
    losses_of(RESPONSE_ONLY, pair)["response/heatmap"].backward()
    assert (pair.student.predictions.heatmap.grad >= 0).all()


def test_softly_it_is_raised_where_the_teacher_is_surer(make_pair):
    pair = make_pair()
    unsure = replace(pair.student.predictions, heatmap=torch.full_like(pair.student.predictions.heatmap, -4.0))
    unsure = replace(unsure, heatmap=unsure.heatmap.requires_grad_())
    sure = HeadOutput(
        heatmap=torch.full_like(unsure.heatmap, 4.0), regression=pair.teacher.predictions.regression.detach()
    )
    response_losses(sure, unsure, pair.targets, GRID, "soft")["heatmap"].backward()
    assert (unsure.heatmap.grad[pair.targets.heatmap == 1] < 0).all()


@pytest.mark.parametrize("target", ["released", "soft"])
def test_a_student_that_answers_as_the_teacher_has_no_box_loss(target, make_pair):
    pair = make_pair()
    losses = response_losses(pair.teacher.predictions, pair.teacher.predictions, pair.targets, GRID, target)
    assert all(loss == 0 for name, loss in losses.items() if name != "heatmap")


def test_codes_count_at_annotated_centres_alone(make_pair):
    pair = make_pair(boxes=1)
    losses = losses_of(RESPONSE_ONLY, pair)
    of(losses, "response/box").backward()
    grad = pair.student.predictions.regression.grad
    touched = grad.abs().sum(dim=2).nonzero()  # sample, task, row, column
    cells = torch.stack([GRID.cells(each.center[0, :2]) for each in pair.targets.boxes])
    assert touched[:, [3, 2]].tolist() == cells.tolist()


def test_a_velocity_nobody_knows_is_not_compared(make_pair):
    pair = make_pair()
    unknown = tuple(replace(each, velocity=torch.full_like(each.velocity, torch.nan)) for each in pair.targets.boxes)
    pair = replace(pair, targets=replace(pair.targets, boxes=unknown))
    config = RESPONSE_ONLY
    losses = losses_of(config, pair)
    assert losses["response/box/velocity"] == 0
    weighted_sum(losses, config.weights).backward()
    grad = pair.student.predictions.regression.grad
    assert grad.isfinite().all()
    assert grad[:, :, :8].any()
    assert not grad[:, :, 8:].any()


def test_velocities_are_compared_in_the_students_unit(make_pair):
    """A student that learns displacements over half a second agrees with the teacher at half its numbers."""
    pair = make_pair()
    halved = pair.teacher.predictions.regression.detach().clone()
    halved[:, :, 8:] *= 0.5
    student = replace(pair.student, predictions=replace(pair.student.predictions, regression=halved))
    targets = replace(pair.targets, velocity_scale=torch.full((2,), 0.5))
    losses = losses_of(RESPONSE_ONLY, replace(pair, student=student, targets=targets))
    assert losses["response/box/velocity"] == 0


# Building


def test_the_label_encoder_is_neither_trained_nor_saved(make_pair):
    pair, config = make_pair(), LabelDistillConfig()
    distiller = pair.build(config).train()
    encoder = distiller.label_encoder.module
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    weighted_sum(distiller(pair.teacher, pair.student, pair.targets), config.weights).backward()
    assert not encoder.training
    assert all(p.grad is None for p in encoder.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert all(name.startswith("adaptors.") for name in distiller.state_dict())


def test_at_their_published_size_adaptors_have_1995648_parameters():
    assert sum(p.numel() for p in [*adaptor(250, 128).parameters(), *adaptor(100, 256).parameters()]) == 1_995_648
    assert sum(p.numel() for p in [*adaptor(150, 128).parameters(), *adaptor(100, 256).parameters()]) == 1_880_448


def test_without_a_label_encoder_it_is_not_built(make_pair):
    pair = make_pair()
    with pytest.raises(ValueError, match="trained label encoder"):
        LabelDistillConfig().build(DistillerInputs(**pair.shapes))
    with pytest.raises(ValueError, match="go together"):
        LabelDistillConfig(label_weight=None).build(DistillerInputs(**pair.shapes, label_encoder=pair.label_encoder()))


def test_the_label_encoder_of_another_teacher_is_refused(make_pair):
    pair = make_pair()
    other = replace(pair.shapes["teacher"], stages=((8, 32, 32), (8, 16, 16), (8, 8, 8)))
    with pytest.raises(ValueError, match="was made for stages"):
        LabelDistillConfig().build(
            DistillerInputs(teacher=other, student=pair.shapes["student"], label_encoder=pair.label_encoder())
        )


@pytest.mark.parametrize(
    ("levels", "stages", "match"),
    [
        (("canvas",), (2,), "pair maps of one size"),
        (("stage7",), (1,), "there are canvas, stage0"),
        (("stage0",), (9,), "stages 0 to 2"),
    ],
)
def test_maps_that_do_not_pair_are_refused(levels, stages, match, make_pair):
    config = LabelDistillConfig(student_levels=levels, teacher_stages=stages)
    with pytest.raises(ValueError, match=match):
        make_pair().build(config)


@pytest.mark.parametrize(
    "options",
    [
        {"label_weight": None, "lidar_weight": None, "response": None},
        {"student_levels": ()},
        {"student_levels": ("canvas", "canvas")},
        {"student_levels": ("canvas", "neck")},
        {"label_weight": -1.0},
        {"student_levels": ("stage0",), "teacher_stages": (2,), "partition": "key_frame"},
    ],
    ids=str,
)
def test_options_that_make_no_sense_or_no_difference_are_errors(options):
    with pytest.raises(ValueError, match=r"."):
        LabelDistillConfig(**options)
