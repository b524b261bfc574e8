import copy

import pytest
import torch
from torch.testing import assert_close

from dualdistill.models.center_head import CenterHeadConfig, side_by_side
from dualdistill.models.center_training import center_losses
from dualdistill.structures import CenterTargets

SMALL = CenterHeadConfig(shared_channels=8, head_channels=4)


def test_the_full_head_has_the_published_number_of_parameters():
    head = CenterHeadConfig().build(in_channels=384)
    assert sum(parameter.numel() for parameter in head.parameters()) == 1_593_414


def test_every_heatmap_starts_at_a_probability_of_a_tenth():
    head = SMALL.build(in_channels=3).eval()
    output = head(torch.zeros(1, 3, 4, 4))
    assert_close(output.heatmap.sigmoid(), torch.full((1, 10, 4, 4), 0.1007), rtol=0, atol=1e-4)
    assert_close(output.regression, torch.zeros(1, 6, 10, 4, 4))


def test_inherited_task_heads_say_the_same_of_the_same_shared_map():
    teacher, student = SMALL.build(in_channels=5), SMALL.build(in_channels=3)
    teacher(torch.randn(4, 5, 8, 8))
    shared = {name: value.clone() for name, value in student.shared.state_dict().items()}
    student.tasks.load_state_dict(teacher.tasks.state_dict())
    assert_close(student.shared.state_dict(), shared)
    student.shared, teacher.shared = torch.nn.Identity(), torch.nn.Identity()
    neck = torch.randn(1, 8, 8, 8)
    assert_close(vars(student.eval()(neck)), vars(teacher.eval()(neck)))


@pytest.mark.parametrize("training", [True, False])
def test_hidden_layers_computed_as_one_are_those_of_the_branches(training):
    torch.manual_seed(0)
    head = SMALL.build(in_channels=3)
    for parameter in head.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    results = []
    for together in (True, False):
        one = copy.deepcopy(head).train(training)
        blocks = [branch[0] for task in one.tasks for branch in task.children()]
        shared = torch.randn(2, 8, 6, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
        outputs = side_by_side(blocks, shared) if together else [block(shared) for block in blocks]
        sum((number * output.sin()).sum() for number, output in enumerate(outputs, start=1)).backward()
        gradients = [parameter.grad for block in blocks for parameter in block.parameters()]
        running = [buffer for block in blocks for buffer in block.buffers() if buffer.is_floating_point()]
        results.append([*outputs, shared.grad, *gradients, *running])
    assert_close(*results, rtol=1e-4, atol=1e-4)


def test_weights_name_exactly_the_losses():
    head = SMALL.build(in_channels=3)
    nothing = CenterTargets(
        heatmap=torch.zeros(1, 10, 4, 4),
        index=torch.zeros(1, 6, 0).long(),
        mask=torch.zeros(1, 6, 0).bool(),
        vector=torch.zeros(1, 6, 0, 10),
    )
    assert center_losses(head(torch.randn(1, 3, 4, 4)), nothing).keys() == SMALL.weights.keys()
    assert SMALL.weights["box/velocity"] == pytest.approx(0.25 * 0.2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"head_channels": 0},
        {"score_threshold": 1.0},
        {"min_radius": -1},
        {"center_range": (1.0, 0.0, 0.0, 0.0, 1.0, 1.0)},
        {"circle_squared_radii": (1.0,), "nms": "circle"},
        {"task_classes": ()},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CenterHeadConfig(**wrong)
