"""DualDistill, DistillBEV and TiG-BEV work on detectors of any classes and tasks: here three classes in one task."""

from dataclasses import replace

import pytest
import torch

from dualdistill.distill.distillbev import DistillBevConfig
from dualdistill.distill.dualdistill import DualDistillConfig
from dualdistill.distill.tig_bev import TigBevConfig
from dualdistill.models.center_head import CenterHead, CenterHeadConfig
from dualdistill.models.center_targets import center_targets
from dualdistill.models.head_criterion import CenterCriterion
from dualdistill.structures import BevOutput, weighted_sum
from tests.distill.conftest import GRID

HEAD = CenterHeadConfig(shared_channels=8, head_channels=4, heatmap_bias=-2.0, task_classes=(3,))


@pytest.fixture
def pair(make_pair):
    made = make_pair()
    boxes = tuple(replace(each, label=each.label % 3) for each in made.targets.boxes)
    targets = replace(made.targets, boxes=boxes, heatmap=center_targets(boxes, GRID, HEAD).heatmap)

    def with_three_classes(output: BevOutput) -> BevOutput:
        torch.manual_seed(0)
        head = CenterHead(HEAD, in_channels=output.neck.shape[1]).eval().requires_grad_(False)
        return replace(output, head=head, predictions=head(output.neck.detach()))

    return replace(
        made,
        teacher=with_three_classes(made.teacher),
        student=with_three_classes(made.student),
        targets=targets,
        criterion=CenterCriterion(GRID, HEAD),
    )


@pytest.mark.parametrize("config", [DualDistillConfig(), DistillBevConfig(), TigBevConfig(keypoints=6)])
def test_three_classes_in_one_task_give_finite_losses_and_gradients(config, pair):
    distiller = pair.build(config)
    losses = distiller(pair.teacher, pair.student, pair.targets)
    assert losses.keys() == config.weights.keys()
    weighted_sum(losses, config.weights).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in distiller.parameters())


def test_crd_has_pseudo_boxes_of_every_class_and_none_beyond(pair):
    found = pair.criterion.pseudo_boxes(pair.teacher.predictions, temperature=1.0)
    assert all(len(boxes) for boxes in found)
    assert {int(label) for boxes in found for label in boxes.label} <= {0, 1, 2}


def test_a_heads_suppression_by_class_needs_a_setting_for_each():
    with pytest.raises(ValueError, match="circle_squared_radii needs 1 values"):
        CenterHeadConfig(task_classes=(3,), nms="circle")
    with pytest.raises(ValueError, match="tasks of nuScenes"):
        CenterHeadConfig(task_classes=(3,), nms="scale")
