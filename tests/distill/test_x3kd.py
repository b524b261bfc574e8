"""X3KD-style distillation: outputs, features, adversary, instances (docs/methods/x3kd.md#worked-values)."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from dualdistill.distill.method import DistillerInputs
from dualdistill.distill.x3kd import (
    X3kdConfig,
    XatConfig,
    XfdConfig,
    XisConfig,
    XodConfig,
    adversarial_loss,
    box_loss,
    box_weights,
    center_offsets,
    discriminator,
    feature_loss,
    heatmap_loss,
    pseudo_heatmap,
    reverse_gradient,
)
from dualdistill.ops.focal import gaussian_focal
from dualdistill.structures import HeadOutput

OUTPUT_ONLY = X3kdConfig(xfd=None, xat=None)
SMALL = X3kdConfig(refine_channels=8, xod=None)


def logit(p: torch.Tensor) -> torch.Tensor:
    return p.double().logit().float()


# Outputs


@pytest.mark.parametrize(
    ("p", "t", "value"),
    [
        (0.9, 1.0, 0.0010536),
        (0.5, 1.0, 0.1732868),
        (0.9, 0.5, 0.1165683),
        (0.5, 0.5, 0.0108304),
        (0.1, 0.05, 0.00085817),
    ],
)
def test_the_focal_loss_is_the_one_worked_out_by_hand(p, t, value):
    assert_close(gaussian_focal(torch.tensor(p), torch.tensor(t)).item(), value, rtol=1e-4, atol=0)


def test_a_confident_cell_of_the_teacher_is_promoted_to_exactly_one():
    teacher = torch.tensor([0.95, 0.6, 0.59]).view(1, 1, 1, 3)
    assert pseudo_heatmap(teacher, 0.6).flatten().tolist() == pytest.approx([1.0, 1.0, 0.59])
    assert (pseudo_heatmap(teacher, 0.6) == 1).sum() == 2


def test_of_peaks_only_the_highest_neighbour_is_promoted():
    teacher = torch.full((1, 1, 5, 5), 0.1)
    teacher[0, 0, 2, 1:4] = torch.tensor([0.7, 0.9, 0.8])
    assert (pseudo_heatmap(teacher, 0.6, "peak") == 1).nonzero().tolist() == [[0, 0, 2, 2]]


def test_with_a_threshold_nobody_reaches_probabilities_are_only_pushed_down():
    teacher = torch.rand(2, 10, 4, 4).clamp(1e-4, 1 - 1e-4)
    student = torch.rand(2, 10, 4, 4).clamp(0.01, 0.99).requires_grad_()
    heatmap_loss(student, pseudo_heatmap(teacher, 1.0)).backward()
    assert (student.grad >= 0).all()


def test_a_student_that_answers_as_the_teacher_is_still_sharpened_but_has_no_box_loss(make_pair):
    said = make_pair().teacher.predictions
    assert box_loss(HeadOutput(heatmap=said.heatmap.detach(), regression=said.regression.detach()), said, 0.1) == 0
    p = torch.rand(1, 10, 4, 4).clamp(0.01, 0.99).requires_grad_()
    target = pseudo_heatmap(p.detach(), 0.6)
    loss = heatmap_loss(p, target)
    loss.backward()
    assert loss > 0
    assert (p.grad[target == 1] < 0).all()
    assert (p.grad[target < 1] > 0).all()


def test_box_differences_are_weighted_as_by_hand():
    """Three cells, residuals in two of ten codes, weights 0.8, 0 and 0.4: (0.8 * 0.8125 + 0.4 * 0.25) / 1.2 = 0.625 of
    two codes, a fifth of it of ten."""
    heatmap = torch.full((1, 10, 1, 3), 1e-4)
    heatmap[0, 0, 0] = torch.tensor([0.8, 0.05, 0.4])  # 0.05: not an object
    residual = torch.tensor([[0.5, 9.0, 0.0], [2.0, 9.0, 1.0]])
    student = torch.zeros(1, 6, 10, 1, 3)
    student[0, 0, :2, 0] = residual
    student.requires_grad_()
    answers = HeadOutput(heatmap=heatmap, regression=student)
    teacher = HeadOutput(heatmap=logit(heatmap), regression=torch.zeros(1, 6, 10, 1, 3))
    loss = box_loss(teacher, answers, 0.1)
    assert_close(loss.item(), 0.625 / 5, rtol=1e-5, atol=0)
    loss.backward()
    assert not student.grad[..., 1].any()


def test_a_cell_weighs_its_mean_probability_over_the_classes_of_a_task():
    probability = torch.full((1, 10, 1, 1), 0.01)
    probability[0, 1], probability[0, 2] = 0.5, 0.1  # truck, construction vehicle
    weights = box_weights(probability, 0.1)[0, :, 0, 0]
    assert_close(weights, torch.tensor([0, 0.3, 0, 0, 0, 0]))


def test_velocities_are_compared_in_the_students_unit(make_pair):
    pair = make_pair()
    halved = pair.teacher.predictions.regression.detach().clone()
    halved[:, :, 8:] *= 0.5
    student = replace(pair.student, predictions=replace(pair.student.predictions, regression=halved))
    targets = replace(pair.targets, velocity_scale=torch.full((2,), 0.5))
    losses = pair.build(replace(OUTPUT_ONLY, xod=XodConfig(box_threshold=0.001)))(pair.teacher, student, targets)
    assert losses["xod/box"] == 0


# Features


def test_the_feature_loss_is_a_distance_that_scales_and_starts_at_the_teachers_own_size():
    taught, learnt = torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)
    assert feature_loss(taught, taught) == 0
    assert_close(feature_loss(3 * learnt, 3 * taught), 3 * feature_loss(learnt, taught))
    assert_close(feature_loss(torch.zeros_like(taught), taught), taught.abs().mean())


def test_balanced_the_few_cells_with_something_weigh_as_much_as_the_empty_ones():
    taught = torch.zeros(1, 2, 4, 4)
    taught[0, :, 0, 0] = 3.0
    learnt = torch.full_like(taught, 1.0)
    assert_close(feature_loss(learnt, taught, "balanced").item(), (2.0 + 1.0) / 2)


# Adversary


def test_reversal_changes_no_bit_forward_and_the_sign_and_size_of_what_comes_back():
    features = torch.randn(3, 4, requires_grad=True)
    reversed_features = reverse_gradient(features, 0.7)
    assert torch.equal(reversed_features, features)
    reversed_features.sin().sum().backward()
    assert_close(features.grad, -0.7 * features.detach().cos())


def test_one_step_helps_the_discriminator_and_the_reversed_one_hinders_it():
    torch.manual_seed(0)
    patches = discriminator(4, (8, 8, 8))
    taught, learnt = torch.randn(2, 4, 16, 16, requires_grad=True), torch.randn(2, 4, 16, 16, requires_grad=True)

    def loss(theirs: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
        return adversarial_loss(patches(theirs), patches(reverse_gradient(ours)))

    before = loss(taught.detach(), learnt)
    before.backward()
    assert taught.grad is None
    with torch.no_grad():
        fooled = loss(taught, learnt - 10 * learnt.grad)
        assert fooled > before
        for parameter in patches.parameters():
            parameter -= 0.1 * parameter.grad
        assert loss(taught, learnt) < before


def test_a_fresh_discriminator_does_not_know(make_pair):
    pair = make_pair()
    distiller = pair.build(SMALL)
    loss = distiller(pair.teacher, pair.student, pair.targets)["xat"]
    assert_close(loss.item(), math.log(2), rtol=0, atol=0.01)
    assert 0 <= distiller.diagnostics()["xat/accuracy"] <= 1


def test_at_its_described_size_the_discriminator_has_1704961_parameters_and_16_by_16_patches():
    patches = discriminator(256)
    assert sum(p.numel() for p in patches.parameters()) == 1_704_961
    with torch.no_grad():
        assert patches(torch.zeros(1, 256, 128, 128)).shape == (1, 1, 16, 16)


# What each term reaches


@pytest.mark.parametrize(
    ("part", "settings", "reached"),
    [
        ("xfd", XfdConfig(), {"canvas"}),
        ("xat", XatConfig(), {"canvas"}),
        ("xod", XodConfig(), {"heatmap", "regression"}),
        ("xis", XisConfig(), {"image features"}),
    ],
    ids=["xfd", "xat", "xod", "xis"],
)
def test_each_term_reaches_its_part_of_the_student_only(part, settings, reached, make_pair):
    config = X3kdConfig(**dict.fromkeys(("xfd", "xat", "xod", "xis")) | {part: settings})
    pair = make_pair()
    student, camera = pair.student, pair.student.camera
    losses = pair.build(config)(pair.teacher, student, pair.targets)
    sum(losses.values()).backward()
    parts = {
        "canvas": student.canvas,
        "stages": student.stages[0],
        "neck": student.neck,
        "heatmap": student.predictions.heatmap,
        "regression": student.predictions.regression,
        "image features": camera.features,
        "depth": camera.depth_logits,
    }
    assert {name for name, part in parts.items() if part.grad is not None and part.grad.any()} == reached


# Instances


def test_offsets_lead_from_each_cell_of_an_object_to_the_middle_of_what_is_seen_of_it():
    instance = torch.tensor([[[0, 0, 5, 1], [0, 0, 5, 1]]])
    seen = torch.tensor([[[True, True, False, True], [True, True, False, True]]])
    offsets = center_offsets(instance, seen)[0]
    assert offsets[0].tolist() == [[0.5, -0.5, 0.0, 0.0], [0.5, -0.5, 0.0, 0.0]]  # right
    assert offsets[1].tolist() == [[0.5, 0.5, 0.0, 0.5], [-0.5, -0.5, 0.0, -0.5]]  # down


def test_the_same_number_in_two_images_is_two_objects():
    instance = torch.zeros(2, 1, 4, dtype=torch.long)
    seen = torch.tensor([[[True, True, False, False]], [[False, False, True, True]]])
    assert center_offsets(instance, seen)[:, 0, 0].tolist() == [[0.5, -0.5, 0, 0], [0, 0, 0.5, -0.5]]


def test_instances_without_instance_maps_are_an_error(make_pair):
    pair = make_pair()
    distiller = pair.build(X3kdConfig(xfd=None, xat=None, xod=None, xis=XisConfig()))
    with pytest.raises(ValueError, match=r"targets\.instances"):
        distiller(pair.teacher, pair.student, replace(pair.targets, instances=None))
    with pytest.raises(ValueError, match="this student has none"):
        X3kdConfig(xis=XisConfig()).build(
            DistillerInputs(teacher=pair.shapes["teacher"], student=replace(pair.shapes["student"], image=None))
        )


# Building


def test_shapes_that_do_not_fit_are_refused(make_pair):
    shapes = make_pair().shapes
    with pytest.raises(ValueError, match="cannot be averaged"):
        X3kdConfig().build(
            DistillerInputs(teacher=shapes["teacher"], student=replace(shapes["student"], canvas=(6, 24, 24)))
        )
    with pytest.raises(ValueError, match="one grid"):
        X3kdConfig().build(
            DistillerInputs(teacher=shapes["teacher"], student=replace(shapes["student"], neck=(6, 8, 8)))
        )
    with pytest.raises(ValueError, match="at least 8x8"):
        X3kdConfig().build(
            DistillerInputs(teacher=shapes["teacher"], student=replace(shapes["student"], canvas=(6, 4, 4)))
        )


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (X3kdConfig, {"xfd": None, "xat": None, "xod": None}, "nothing to distil"),
        (X3kdConfig, {"xfd": XfdConfig(reduce="balanced")}, 'needs level "canvas"'),
        (X3kdConfig, {"xfd": None, "xat": None, "level": "canvas"}, "level has no effect"),
        (XodConfig, {"positive_threshold": 0.0}, "positive_threshold must be a number above 0 to 1"),
        (XfdConfig, {"weight": -1.0}, "weight must be a number from 0"),
        (XatConfig, {"reversal": 0.0}, "reversal must be a number above 0"),
    ],
)
def test_options_that_make_no_sense_or_no_difference_are_errors(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)
