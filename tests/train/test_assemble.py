"""A training is assembled once: what it starts from, what it owns, what its losses are."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from dualdistill.distill.shapes import BevShapes
from dualdistill.experiment.plain import override
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.recipes.catalogue import find
from dualdistill.structures import weighted_sum
from dualdistill.train.assemble import assemble, shapes_of
from dualdistill.train.data import random_batch
from dualdistill.train.step import LiveTeacher, Training
from tests.commands.conftest import TINY_STUDENT, TINY_TEACHER


def experiment_of(name: str, *sets: str):
    small = [*TINY_STUDENT, *(TINY_TEACHER if name != "student" else ())]
    return override(find(f"synthetic/{name}").build(), [*small, *sets])


def training_of(name: str, *sets: str) -> Training:
    torch.manual_seed(0)
    return assemble(experiment_of(name, *sets))


@pytest.fixture(scope="module")
def batch():
    return random_batch(experiment_of("dualdistill-centerpoint").data, cameras=2, boxes=5, points=500)


def test_a_distilled_student_starts_from_the_weights_it_has_alone_but_for_the_task_heads():
    alone = training_of("student").detector.state_dict()
    distilled = training_of("dualdistill-centerpoint").detector.state_dict()
    differ = {name for name, value in alone.items() if not torch.equal(value, distilled[name])}
    assert differ
    assert all(name.startswith("head.tasks.") for name in differ)


def test_a_control_starts_as_the_distilled_student_and_has_neither_teacher_nor_distiller():
    control, distilled = training_of("control-centerpoint"), training_of("dualdistill-centerpoint")
    assert control.teacher is None
    assert control.learners == [control.detector]
    for name, value in distilled.detector.state_dict().items():
        assert torch.equal(control.detector.state_dict()[name], value), name


def test_the_teacher_is_neither_saved_nor_trained_but_moves_along():
    training = training_of("dualdistill-centerpoint").train()
    teacher = training.teacher.module
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert {name.partition(".")[0] for name in training.state_dict()} == {"detector", "distiller"}
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in training.parameters()}
    training.double()
    assert all(p.dtype == torch.float64 for p in teacher.parameters())


def test_without_distillation_in_a_step_the_losses_are_the_detectors_own(batch):
    training = training_of("dualdistill-centerpoint")
    whole, own = training(batch), training(batch, distil=False)
    assert own.keys() == training.detector.weights.keys()
    assert whole.keys() == training.weights.keys()
    weighted_sum(own, training.weights).backward()
    assert all(p.grad is None for p in training.distiller.parameters())


def test_one_factor_scales_all_weights_of_the_distiller():
    plain, half = (
        training_of("dualdistill-centerpoint", f"training.distill_weight={factor}").weights for factor in (1, 0.5)
    )
    own = training_of("student").weights
    assert half == {name: weight if name in own else 0.5 * weight for name, weight in plain.items()}


def test_a_gradient_bound_scales_the_distillers_weights_and_is_kept_in_buffers(batch):
    training = training_of("dualdistill-centerpoint", "training.gradient_share=1e-6").train()
    before = training.weights
    training(batch)
    factor = training.diagnostics()["distill_factor"]
    assert 0 < factor < 1
    own = training.detector.weights
    expected = {name: weight if name in own else factor * weight for name, weight in before.items()}
    assert training.weights == pytest.approx(expected)
    other = training_of("dualdistill-centerpoint", "training.gradient_share=1e-6")
    other.load_state_dict(training.state_dict())
    assert other.weights == training.weights


def test_shapes_do_not_depend_on_the_example_they_are_taken_from(batch):
    training = training_of("dualdistill-centerpoint").eval()
    data = experiment_of("dualdistill-centerpoint").data
    with torch.no_grad():
        assert shapes_of(training.detector, data) == BevShapes.of(training.detector(batch))
        assert shapes_of(training.teacher.module) == BevShapes.of(training.teacher(batch))


def test_a_teacher_source_is_made_from_the_frozen_teacher(batch):
    given = []

    def source(teacher: CenterPoint) -> LiveTeacher:
        given.append(teacher)
        return LiveTeacher(teacher)

    torch.manual_seed(0)
    training = assemble(experiment_of("dualdistill-centerpoint"), source=source)
    assert isinstance(given[0], CenterPoint)
    assert not given[0].training
    assert_close(training(batch), training_of("dualdistill-centerpoint")(batch))


def test_teacher_and_distiller_come_together():
    training = training_of("dualdistill-centerpoint")
    with pytest.raises(ValueError, match="come together"):
        Training(training.detector, teacher=training.teacher)


def test_a_student_of_another_depth_needs_no_other_setting_of_the_distiller(batch):
    experiment = experiment_of("tigbev-centerpoint")
    lift = replace(experiment.student.lift, depth_step=2 * experiment.student.lift.depth_step)
    training = assemble(replace(experiment, student=replace(experiment.student, lift=lift)))
    sample = random_batch(experiment.data, cameras=2, boxes=5, points=500)
    assert training(sample)["tig/inner_depth"].isfinite()
