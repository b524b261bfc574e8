"""Every distiller works on detectors of any classes and tasks: here three classes in one task, or in two."""

from dataclasses import replace

import pytest
import torch

from dualdistill.distill.distillbev import DistillBevConfig
from dualdistill.distill.dualdistill import DualDistillConfig
from dualdistill.distill.labeldistill import LabelDistillConfig, ResponseConfig
from dualdistill.distill.tig_bev import TigBevConfig
from dualdistill.distill.x3kd import X3kdConfig, XisConfig
from dualdistill.models.center_head import CenterHead, CenterHeadConfig
from dualdistill.models.center_training import center_targets
from dualdistill.models.head_criterion import CenterCriterion
from dualdistill.structures import BevOutput, weighted_sum
from tests.distill.conftest import GRID


@pytest.fixture(params=[(3,), (1, 2)], ids=["one task", "two tasks"])
def pair(make_pair, request):
    head_config = CenterHeadConfig(shared_channels=8, head_channels=4, heatmap_bias=-2.0, task_classes=request.param)
    made = make_pair()
    boxes = tuple(replace(each, label=each.label % 3) for each in made.targets.boxes)
    assert made.targets.instances is not None
    targets = replace(
        made.targets,
        boxes=boxes,
        heatmap=center_targets(boxes, GRID, head_config).heatmap,
        instances=replace(made.targets.instances, klass=made.targets.instances.klass.clamp(max=2)),
    )

    def with_three_classes(output: BevOutput) -> BevOutput:
        torch.manual_seed(0)
        head = CenterHead(head_config, in_channels=output.neck.shape[1]).eval().requires_grad_(False)
        return replace(output, head=head, predictions=head(output.neck.detach()))

    return replace(
        made,
        teacher=with_three_classes(made.teacher),
        student=with_three_classes(made.student),
        targets=targets,
        criterion=CenterCriterion(GRID, head_config),
    )


@pytest.mark.parametrize(
    "config",
    [
        DualDistillConfig(),
        DistillBevConfig(),
        TigBevConfig(keypoints=6),
        X3kdConfig(refine_channels=8, xis=XisConfig()),
        LabelDistillConfig(),
        LabelDistillConfig(response=ResponseConfig(target="soft")),
    ],
    ids=lambda config: type(config).__name__,
)
def test_three_classes_give_finite_losses_and_gradients(config, pair):
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
