"""Distillers in a loop of one's own: with detectors of this package they are the methods themselves."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import dualdistill as dd
from dualdistill.distill.dualdistill import DualDistillConfig, MfdConfig
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.head_criterion import CenterCriterion
from dualdistill.structures import HeadOutput, weighted_sum
from tests.distill.conftest import GRID, make_pair  # noqa: F401 (a fixture)

STAGES = {"teacher": ((8, 16, 16), (16, 8, 8)), "student": ((8, 16, 16), (24, 8, 8))}
METHODS = [dd.DualDistill, dd.DistillBev, dd.TigBev, dd.X3kd, dd.LabelDistill]


def shapes(who):
    return dd.Shapes(stages=STAGES[who], neck=(10, 16, 16), extent=GRID.extent)


def foreign(who, head, batch=2):
    """Maps as another code base would give them; the student's are leaves."""
    stages, neck = ([torch.rand(batch, *shape).requires_grad_() for shape in s] for s in (STAGES[who], [(10, 16, 16)]))
    return dd.Maps(stages=stages, neck=neck[0], head=head)


class Head(nn.Module):
    def __init__(self, classes=3, codes=10):
        super().__init__()
        self.heatmap, self.codes = nn.Conv2d(10, classes, 1), nn.Conv2d(10, codes, 1)

    def forward(self, neck):
        return self.heatmap(neck), self.codes(neck)


def boxes(count=4):
    return dd.Boxes(
        center=torch.rand(count, 3) * 12 - 6,
        size=1 + torch.rand(count, 3),
        yaw=torch.rand(count),
        velocity=torch.full((count, 2), torch.nan),
        label=torch.arange(count) % 3,
    )


@pytest.mark.parametrize("codes", [10, 8], ids=["velocities", "no velocities"])
@pytest.mark.parametrize("method", METHODS)
def test_detectors_of_three_classes_are_distilled(method, codes):
    torch.manual_seed(0)
    teacher_head, student_head = Head(codes=codes).requires_grad_(False), Head(codes=codes)
    distill = method(teacher=shapes("teacher"), student=shapes("student"), classes=3)
    student = foreign("student", student_head)
    loss = distill(foreign("teacher", teacher_head), student, [boxes(), boxes(0)])
    loss.backward()
    assert loss.isfinite()
    assert any(m.grad is not None and m.grad.any() for m in (*student.stages, student.neck))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in distill.parameters())


def test_with_this_packages_detectors_it_is_the_method_itself(make_pair):  # noqa: F811
    pair = make_pair()
    config = DualDistillConfig(mfd=MfdConfig(alignment="upsample-conv"))
    torch.manual_seed(0)
    method = pair.build(config)
    torch.manual_seed(0)
    distill = dd.DualDistill(**pair.shapes, config=config)
    maps = [
        dd.Maps(stages=side.stages, neck=side.neck, canvas=side.canvas, head=side.head, predictions=side.predictions)
        for side in (pair.teacher, pair.student)
    ]
    distill.method.criterion = pair.criterion  # the fixture's head finds boxes far outside the maps, too
    expected = method(pair.teacher, pair.student, pair.targets)
    found = distill.losses(*maps, pair.targets)
    for name, loss in expected.items():
        assert_close(found[name], loss, msg=name)
    assert_close(distill(*maps, pair.targets.boxes), weighted_sum(expected, config.weights))


def test_a_head_of_another_kind_brings_its_own_criterion():
    class Criterion:
        def pseudo_boxes(self, predictions, temperature):
            return tuple(boxes() for _ in predictions.heatmap)

        def losses_of_features(self, head, neck, found):
            away = head(neck).regression.square().mean()
            return dict.fromkeys(("heatmap", "box/xy", "box/z", "box/size", "box/yaw", "box/velocity"), away)

    def head(neck):
        return HeadOutput(heatmap=neck[:, :3], regression=neck[:, None, :4])  # four codes, of whatever meaning

    sides = {"teacher": shapes("teacher"), "student": shapes("student")}
    distill = dd.DualDistill(**sides, classes=3, criterion=Criterion(), config=DualDistillConfig(mfd=None))
    assert distill(foreign("teacher", head), foreign("student", None), [boxes(), boxes()]) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": None}, "give its Maps a head"),
        ({"head": Head(classes=4)}, "have 4 classes, this loss was made for 3"),
        ({"neck": torch.rand(2, 7, 16, 16)}, r"stages and neck must be .*\(10, 16, 16\)"),
    ],
)
def test_maps_that_do_not_fit_are_refused(change, message):
    distill = dd.DualDistill(teacher=shapes("teacher"), student=shapes("student"), classes=3)
    teacher = replace(foreign("teacher", Head()), **change)
    with pytest.raises(ValueError, match=message):
        distill(teacher, foreign("student", None), [boxes(), boxes()])


def test_labels_beyond_the_classes_are_refused():
    distill = dd.DualDistill(teacher=shapes("teacher"), student=shapes("student"), classes=2)
    with pytest.raises(ValueError, match="labels below 2"):
        distill(foreign("teacher", Head(classes=2)), foreign("student", None), [boxes(), boxes()])


def test_what_a_method_does_not_use_is_refused():
    criterion = CenterCriterion(GRID, CenterHeadConfig())
    with pytest.raises(ValueError, match="criterion has no effect on DistillBevConfig"):
        dd.DistillBev(teacher=shapes("teacher"), student=shapes("student"), criterion=criterion)
