"""DistillBEV against recorded numbers of its released code (qcraftai/distill-bev at 3e8f6a4, CPU, float32).

Three scenes: rotated boxes, boxes partly out of range, none; released weights, adapters in training mode. Test points
are corners, as released.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dualdistill.distill.distillbev import DistillBev, DistillBevConfig
from dualdistill.distill.method import DistillerInputs
from dualdistill.distill.mfd import RegionConfig
from dualdistill.distill.shapes import BevShapes
from dualdistill.structures import BevOutput, HeadOutput, Targets, weighted_sum
from tests.geometry.reference import boxes_from_legacy

GOLDEN = Path(__file__).parent / "golden" / "distillbev"
POSITIONS = {"backbone1": "stage1", "backbone2": "stage2", "head": "neck"}
EXTENT = (-9.6, -9.6, 9.6, 9.6)
TERMS = {
    "kd_fg_feat_loss": "foreground",
    "kd_bg_feat_loss": "background",
    "kd_spatial_loss": "spatial",
    "kd_fp_bg_feat_loss": "false_positive",
}
OFFICIAL_LAYERS = {
    "1.conv1": "first",
    "1.norm1": "rest.0",
    "1.conv2": "rest.2",
    "1.norm2": "rest.3",
    "1.conv3": "rest.5",
    "1.norm3": "rest.6",
    "": "",
}
RELEASED = DistillBevConfig(regions=RegionConfig(test_point="corner"))


def recorded(position: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"loss_{position}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def of_adapter(prefix: str, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Recorded tensors of the adapter by our names."""
    found = {}
    for key, value in arrays.items():
        if key.startswith(prefix):
            layer, _, leaf = key.removeprefix(prefix).rpartition(".")
            found[f"{OFFICIAL_LAYERS[layer]}.{leaf}".lstrip(".")] = value
    return found


@pytest.fixture(scope="module")
def golden() -> dict[str, dict[str, Tensor]]:
    return {position: recorded(position) for position in POSITIONS}


def output(golden: dict[str, dict[str, Tensor]], who: str) -> BevOutput:
    """The recorded maps of all three levels as a detector shows them; stage 0 is nobody's."""
    one, two, head = (golden[position][f"{who}_feat"].clone().requires_grad_() for position in POSITIONS)
    logits = golden["head"]["teacher_heatmap_logits"]
    return BevOutput(
        extent=EXTENT,
        canvas=one,
        stages=(one, one, two),
        neck=head,
        predictions=HeadOutput(heatmap=logits, regression=torch.zeros(3, 6, 10, 24, 24)),
        head=nn.Identity(),
    )


def distil(golden: dict[str, dict[str, Tensor]]) -> tuple[dict[str, Tensor], BevOutput, DistillBev]:
    teacher, student = output(golden, "teacher"), output(golden, "student")
    distiller = RELEASED.build(DistillerInputs(teacher=BevShapes.of(teacher), student=BevShapes.of(student))).train()
    for position, level in POSITIONS.items():
        arrays = golden[position]
        distiller.align[level].load_state_dict(of_adapter("w.", arrays))
        distiller.mimic.levels[level].spatial.load_state_dict(
            {leaf: arrays[f"spatial_conv.{leaf}"] for leaf in ("weight", "bias")}
        )
    head = golden["head"]
    boxes = tuple(boxes_from_legacy(head[f"gt_boxes.{i}"], head[f"gt_labels.{i}"].long()) for i in range(3))
    return distiller(teacher, student, Targets(boxes=boxes, heatmap=head["gt_heatmap"])), student, distiller


def test_the_three_levels_were_recorded_for_the_same_scenes(golden):
    for position in POSITIONS:
        for sample in range(3):
            assert torch.equal(golden[position][f"gt_boxes.{sample}"], golden["head"][f"gt_boxes.{sample}"])


def test_the_weighted_losses_of_all_levels_are_the_released_ones(golden):
    losses, _, _ = distil(golden)
    expected = {
        f"mfd/{level}/{TERMS[name]}": value
        for position, level in POSITIONS.items()
        for name, value in json.loads((GOLDEN / f"loss_{position}.json").read_text())["scalars"].items()
    }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        weighted = (RELEASED.weights[name] * losses[name]).item()
        assert_close(weighted, value, rtol=2e-5, atol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_the_gradients_of_maps_and_adapters_are_the_released_ones(golden):
    losses, student, distiller = distil(golden)
    weighted_sum(losses, RELEASED.weights).backward()
    for (position, level), features in zip(POSITIONS.items(), (*student.stages[1:], student.neck), strict=True):
        arrays, parameters = golden[position], dict(distiller.align[level].named_parameters())
        assert_close(features.grad, arrays["grad_student_feat"], rtol=1e-3, atol=1e-4)
        gradients = of_adapter("gw.", arrays)
        assert gradients.keys() == parameters.keys()
        for name, expected in gradients.items():
            assert_close(parameters[name].grad, expected, rtol=1e-3, atol=1e-4, msg=lambda t, n=name: f"{n}: {t}")
        spatial = distiller.mimic.levels[level].spatial
        assert_close(spatial.weight.grad, arrays["g_spatial_conv.weight"], rtol=1e-3, atol=1e-4)
        assert_close(spatial.bias.grad, arrays["g_spatial_conv.bias"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("position", "level"), POSITIONS.items())
def test_the_adapters_say_what_the_released_ones_say(golden, position, level):
    _, _, distiller = distil(golden)
    aligned = distiller.align[level](golden[position]["student_feat"])
    assert_close(aligned, golden[position]["adapted_student_feat"], rtol=1e-4, atol=2e-5)
