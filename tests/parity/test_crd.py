"""CRD against recorded numbers of the released code (Gaeun-Kimm/DualDistill at e16e1678, CPU, float32).

A teacher head with random weights in evaluation mode, a teacher map, a student map and its 1x1 convolution.
The head speaks the legacy box convention: its codes become ours by a swap and two signs, exactly.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dualdistill.distill.align import neck_aligner
from dualdistill.distill.dualdistill import CrdLabels, cross_head_losses, response_weights
from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_head import CenterHead, CenterHeadConfig
from dualdistill.models.head_criterion import CenterCriterion
from dualdistill.structures import BevOutput, HeadOutput, Losses, Targets, weighted_sum
from tests.convert.foreign import load_official_head
from tests.geometry.reference import boxes_from_legacy, legacy_from_boxes

GOLDEN = Path(__file__).parent / "golden" / "crd"
CONFIG = CenterHeadConfig(shared_channels=8, head_channels=8)
GRID = BevGrid.covering((-9.6, -9.6, 9.6, 9.6), (24, 24))
JUDGE = CenterCriterion(GRID, CONFIG)
WEIGHTS = response_weights(heatmap=1.0, box=0.25, velocity=0.2)
GROUPS = {
    "loss_heatmap": "heatmap",
    "loss_xy": "box/xy",
    "loss_z": "box/z",
    "loss_whl": "box/size",
    "loss_yaw": "box/yaw",
    "loss_vel": "box/velocity",
}


def recorded(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def ours_from_legacy(codes: torch.Tensor) -> torch.Tensor:
    """Length before width, and yaw = -theta - pi/2, so sin yaw = -cos theta and cos yaw = -sin theta."""
    x, y, z, width, length, height, sin, cos, vx, vy = codes.unbind(dim=2)
    return torch.stack([x, y, z, length, width, height, -cos, -sin, vx, vy], dim=2)


def teacher_output() -> BevOutput:
    head = CenterHead(CONFIG, in_channels=12).eval().requires_grad_(False)
    weights = {k.removeprefix("head."): v for k, v in recorded("crd_head_weights").items()}
    weights = {k: v.squeeze(0) if k.endswith("num_batches_tracked") else v for k, v in weights.items()}
    load_official_head(head, weights)

    def head_in_our_words(neck: torch.Tensor) -> HeadOutput:
        legacy = head(neck)
        return HeadOutput(heatmap=legacy.heatmap, regression=ours_from_legacy(legacy.regression))

    neck = recorded("crd_inputs")["teacher_feat"]
    return BevOutput(
        extent=GRID.extent,
        canvas=neck,
        stages=(),
        neck=neck,
        predictions=head_in_our_words(neck),
        head=head_in_our_words,
    )


def recorded_case(labels: CrdLabels, temperature: float) -> tuple[Losses, torch.Tensor, torch.nn.Conv2d]:
    inputs = recorded("crd_inputs")
    student = inputs["student_feat"].requires_grad_()
    align = neck_aligner((8, 24, 24), (12, 24, 24))
    align.load_state_dict({"weight": inputs["adapter.weight"], "bias": inputs["adapter.bias"]})
    boxes = tuple(boxes_from_legacy(inputs[f"gt_boxes.{b}"], inputs[f"gt_labels.{b}"].long()) for b in range(2))
    targets = Targets(boxes=boxes, heatmap=torch.zeros(2, 10, 24, 24))
    losses = cross_head_losses(teacher_output(), align(student), targets, JUDGE, labels=labels, temperature=temperature)
    return losses, student, align


def rows(legacy: torch.Tensor, labels: torch.Tensor) -> Iterator[torch.Tensor]:
    """Boxes in an order of their own: by label, then x."""
    order = np.lexsort((legacy[:, 0].numpy(), labels.numpy()))
    yield labels[order].float()
    yield from legacy[order].T


def test_the_heads_answers_to_both_maps_are_the_recorded_ones():
    inputs, teacher = recorded("crd_inputs"), teacher_output()
    assert_close(teacher.predictions.heatmap, inputs["teacher_heatmap_logits"], rtol=1e-4, atol=1e-5)
    aligned = torch.nn.functional.conv2d(inputs["student_feat"], inputs["adapter.weight"], inputs["adapter.bias"])
    assert_close(teacher.head(aligned).heatmap, inputs["cross_heatmap_logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.1])
def test_pseudo_boxes_are_the_recorded_ones(temperature):
    arrays = recorded("crd_targets")
    boxes = JUDGE.pseudo_boxes(teacher_output().predictions, temperature)
    for sample, found in enumerate(boxes):
        expected = rows(arrays[f"T{temperature}.boxes.{sample}"], arrays[f"T{temperature}.labels.{sample}"])
        for ours, theirs in zip(rows(legacy_from_boxes(found), found.label), expected, strict=True):
            difference = (ours - theirs).abs()
            # A legacy angle and the same one a turn further are one.
            assert torch.minimum(difference, (difference - 2 * torch.pi).abs()).max() < 1e-3


@pytest.mark.parametrize(
    ("case", "labels", "temperature"),
    [
        ("T1.0", "teacher", 1.0),
        ("T0.5", "teacher", 0.5),
        ("T0.1", "teacher", 0.1),
        ("gt", "ground_truth", 0.1),
    ],
)
def test_losses_and_gradients_are_the_recorded_ones(case, labels, temperature):
    arrays = recorded("crd_targets")
    scalars = json.loads((GOLDEN / "crd_targets.json").read_text())["scalars"]
    losses, student, align = recorded_case(labels, temperature)
    for theirs, ours in GROUPS.items():
        per_task = [scalars[f"{case}/task{task}.{theirs}"] for task in range(6)]
        assert_close((WEIGHTS[ours] * losses[ours]).item(), sum(per_task), rtol=1e-4, atol=0)
    total = weighted_sum(losses, WEIGHTS)
    assert_close(total.item(), scalars[f"{case}/total"], rtol=1e-4, atol=0)
    if case in ("T0.1", "gt"):
        total.backward()
        assert_close(student.grad, arrays[f"{case}.grad_student_feat"], rtol=1e-3, atol=1e-5)
        assert_close(align.weight.grad, arrays[f"{case}.g_adapter.weight"], rtol=1e-3, atol=1e-4)
        assert_close(align.bias.grad, arrays[f"{case}.g_adapter.bias"], rtol=1e-3, atol=1e-4)
