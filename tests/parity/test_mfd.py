"""MFD against recorded numbers of the released code (Gaeun-Kimm/DualDistill at e16e1678, CPU, float32).

Three scenes: rotated boxes, boxes partly out of range, none. Test points are corners, as released; the
numbers with centres come from the released function with its test points moved
(docs/methods/dualdistill.md#worked-values).
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dualdistill.distill.align import neck_aligner, stage_aligner
from dualdistill.distill.mfd import (
    FalsePositiveConfig,
    FeatureMimic,
    MimicConfig,
    RegionConfig,
    false_positives,
    foreground,
    split_regions,
)
from dualdistill.distill.terms import channel_attention, spatial_attention
from dualdistill.geometry.grid import BevGrid
from dualdistill.structures import Boxes, HeadOutput, Targets, weighted_sum
from tests.geometry.reference import boxes_from_legacy
from tests.parity.released_aoa import load_official_aoa

GOLDEN = Path(__file__).parent / "golden" / "feature_distill"
EXTENT = (-9.6, -9.6, 9.6, 9.6)
RELEASED = RegionConfig(test_point="corner")
LEVELS = {"backbone1": "stage1", "backbone2": "stage2", "head": "neck"}
TERMS = {
    "kd_fg_feat_loss": "foreground",
    "kd_bg_feat_loss": "background",
    "kd_spatial_loss": "spatial",
    "kd_fp_bg_feat_loss": "false_positive",
}
FALSE_POSITIVES = FalsePositiveConfig()
WEIGHTS = MimicConfig().weights


def recorded(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def scalars(name: str) -> dict[str, float]:
    return json.loads((GOLDEN / f"{name}.json").read_text())["scalars"]


def under(prefix: str, arrays: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def recorded_boxes(arrays: dict[str, torch.Tensor]) -> tuple[Boxes, ...]:
    return tuple(
        boxes_from_legacy(arrays[f"gt_boxes.{sample}"], arrays[f"gt_labels.{sample}"].long()) for sample in range(3)
    )


def losses_of(
    position: str,
    config: RegionConfig,
    level: str | None = None,
    logits: torch.Tensor | None = None,
    false_positives: FalsePositiveConfig = FALSE_POSITIVES,
):
    """Losses of a recorded level, with the student's map, adapter and spatial convolution they come from."""
    arrays, level = recorded(f"loss_{position}"), level or LEVELS[position]
    student, teacher = arrays["student_feat"].requires_grad_(), arrays["teacher_feat"]
    shapes = tuple(student.shape[1:]), tuple(teacher.shape[1:])
    if position == "head":
        align = neck_aligner(*shapes)
        align.load_state_dict(under("w.", arrays))
    else:
        align = stage_aligner("aoa", *shapes)
        load_official_aoa(align, under("w.", arrays))
    grid = BevGrid.covering(EXTENT, tuple(teacher.shape[-2:]))
    mimic = FeatureMimic({level: grid}, config, false_positives)
    mimic.levels[level].spatial.load_state_dict(under("spatial_conv.", arrays))
    aligned = align(student)
    if logits is None:
        logits = arrays.get("teacher_heatmap_logits", torch.zeros(3, 10, 24, 24))
    predictions = HeadOutput(heatmap=logits, regression=torch.zeros(3, 6, 10, 24, 24))
    heatmap = arrays.get("gt_heatmap", torch.zeros(3, 10, 24, 24))
    targets = Targets(boxes=recorded_boxes(arrays), heatmap=heatmap)
    losses = mimic({level: teacher}, {level: aligned}, predictions, targets)
    return losses, aligned, student, align, mimic.levels[level]


def assert_losses(losses: dict[str, torch.Tensor], level: str, expected: dict[str, float], rtol: float) -> None:
    assert len(losses) == len(expected)
    for name, value in expected.items():
        key = f"mfd/{level}/{TERMS[name]}"
        assert_close((WEIGHTS[key] * losses[key]).item(), value, rtol=rtol, atol=0, msg=lambda t, k=key: f"{k}: {t}")


@pytest.mark.parametrize("position", LEVELS)
def test_the_losses_and_their_gradients_are_the_released_ones(position):
    arrays = recorded(f"loss_{position}")
    losses, aligned, student, align, mimic = losses_of(position, RELEASED)
    assert_losses(losses, LEVELS[position], scalars(f"loss_{position}"), rtol=5e-5)
    assert_close(aligned, arrays["adapted_student_feat"], rtol=1e-4, atol=2e-5)

    weighted_sum(losses, WEIGHTS).backward()
    assert_close(student.grad, arrays["grad_student_feat"], rtol=1e-3, atol=1e-4)
    assert_close(mimic.spatial.weight.grad, arrays["g_spatial_conv.weight"], rtol=1e-3, atol=1e-4)
    assert_close(mimic.spatial.bias.grad, arrays["g_spatial_conv.bias"], rtol=1e-3, atol=1e-4)
    if position == "head":
        assert_close(align.weight.grad, arrays["gw.weight"], rtol=1e-3, atol=1e-4)
        assert_close(align.bias.grad, arrays["gw.bias"], rtol=1e-3, atol=1e-4)
    else:
        assert_close(align.projector.gain.grad, arrays["gw.2.weight"], rtol=1e-3, atol=1e-4)
        assert_close(align.attention.query.grad, arrays["gw.0.query.weight"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("position", LEVELS)
def test_masks_scales_and_attention_maps_are_the_released_ones(position):
    arrays = recorded(f"loss_{position}")
    teacher, aligned = arrays["teacher_feat"], arrays["adapted_student_feat"]
    objects = foreground(recorded_boxes(arrays), BevGrid.covering(EXTENT, tuple(teacher.shape[-2:])), "corner")
    assert_close(objects.mask.float(), arrays["fg_mask_raw"], rtol=0, atol=0)
    assert_close(objects.scale, arrays["fg_scale_raw"], rtol=1e-5, atol=1e-6)

    attention = (spatial_attention(teacher, 0.5) + spatial_attention(aligned, 0.5)) / 2
    assert_close(attention, arrays["att_sum"], rtol=1e-4, atol=2e-5)
    channels = channel_attention(teacher, 0.5)
    assert_close(channels, arrays["att_channel_teacher"], rtol=1e-4, atol=2e-5)

    unfounded = None
    if position == "head":
        unfounded = false_positives(arrays["gt_heatmap"], arrays["teacher_heatmap_logits"], objects.mask)
        assert_close(unfounded.float(), arrays["fp_mask_raw"], rtol=0, atol=0)
    regions = split_regions(objects, unfounded)
    assert_close(regions["foreground"] * attention, arrays["fg_mask_final"], rtol=1e-4, atol=2e-5)
    assert_close(regions["background"] * attention, arrays["bg_mask_final"], rtol=1e-4, atol=2e-5)
    if position == "head":
        assert_close(regions["false_positive"] * attention * channels, arrays["fp_mask_final"], rtol=1e-4, atol=2e-5)


VARIANTS = {
    "gt_thres_0.4": (RELEASED, FalsePositiveConfig(truth_threshold=0.4)),
    # One released threshold serves both unless the other is set.
    "thres_0.3": (RELEASED, FalsePositiveConfig(truth_threshold=0.3, teacher_threshold=0.3)),
    "temperatures": (replace(RELEASED, spatial_temperature=0.1), FalsePositiveConfig(channel_temperature=0.25)),
    "student_ratio_2": (replace(RELEASED, student_attention=2.0), FALSE_POSITIVES),
    "spatial_teacher": (replace(RELEASED, student_attention=0.0), FALSE_POSITIVES),
}


def variant(name: str) -> dict[str, float]:
    return {k.split("/")[1]: v for k, v in scalars("loss_head_variants").items() if k.startswith(f"{name}/")}


@pytest.mark.parametrize("name", VARIANTS)
def test_each_option_does_what_the_released_one_does(name):
    config, found = VARIANTS[name]
    losses, *_ = losses_of("head", config, false_positives=found)
    assert_losses(losses, "neck", variant(name), rtol=5e-5)


def test_without_false_positives_they_are_background():
    losses, *_ = losses_of("head", RELEASED, level="stage1")  # same weights, no region of its own
    assert_losses(losses, "stage1", variant("no_fp"), rtol=5e-5)


def test_a_teacher_that_sees_objects_everywhere_is_as_recorded():
    losses, *_ = losses_of("head", RELEASED, logits=torch.full((3, 10, 24, 24), 3.0))
    assert_losses(losses, "neck", variant("teacher_all_positive"), rtol=5e-5)


# ---- the released function on formulas instead of arrays (docs/methods/dualdistill.md#worked-values) ----


def formula_maps(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    y, x = torch.meshgrid(torch.arange(side).double(), torch.arange(side).double(), indexing="ij")
    c, b = torch.arange(1, 5).double()[:, None, None], torch.arange(1, 3).double()[:, None, None, None]
    teacher = (0.1 * c * x + 0.07 * b * y).sin().clamp(min=0)
    return teacher.float(), (0.5 * (0.05 * c * x - 0.09 * b * y).cos()).float()


def formula_boxes() -> tuple[Boxes, ...]:
    """x, y, extent along x, along y, clockwise angle: the legacy layout, as the recorded boxes."""
    samples = (
        [(10, 5, 2.0, 4.6, 0.3), (-20, -12, 2.9, 11.0, 1.2), (3.3, -30.1, 0.7, 0.7, 0)],
        [(0, 20, 1.9, 4.4, -0.8)],
    )
    legacy = [[[x, y, -1, w, n, 2, angle, 0, 0] for x, y, w, n, angle in sample] for sample in samples]
    return tuple(boxes_from_legacy(torch.tensor(rows), torch.zeros(len(rows)).long()) for rows in legacy)


def formula_heatmaps() -> tuple[torch.Tensor, torch.Tensor]:
    """Annotated heat maps (two samples) and teacher logits in three channels: group 0, then group 1."""
    y, x = torch.meshgrid(torch.arange(128).double(), torch.arange(128).double(), indexing="ij")
    heat = torch.zeros(2, 3, 128, 128, dtype=torch.float64)
    for sample, boxes in enumerate(formula_boxes()):
        # In float32, where the box at y = 20 falls into row 88; exactly, it lies on the border of row 89.
        for k, (cx, cy) in enumerate(((boxes.center[:, :2] + 51.2) / 0.8).floor().tolist()):
            peak = torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (5 / 6) ** 2))
            heat[sample, k % 2] = torch.maximum(heat[sample, k % 2], peak)
    first, second = -4 + 5 * (0.15 * x + 0.11 * y).sin(), -4 + 5 * (0.09 * x - 0.13 * y).cos()
    return heat.float(), torch.stack([first, second, second]).expand(2, -1, -1, -1).float()


@pytest.mark.parametrize(
    ("side", "test_point", "expected"),
    [
        (64, "corner", {"foreground": 0.0382800, "background": 0.0661495, "spatial": 3.408556}),
        (64, "center", {"foreground": 0.0189580, "background": 0.0661495}),
        (
            128,
            "corner",
            {
                "foreground": 0.0861120,
                "background": 0.0690958,
                "false_positive": 0.1029923,
                "spatial": 14.09990,
            },
        ),
        (128, "center", {"foreground": 0.0785078, "background": 0.0691223, "false_positive": 0.1029953}),
    ],
)
def test_the_released_function_gives_these_numbers_for_these_formulas(side, test_point, expected):
    level = "neck" if side == 128 else "stage2"
    grid = BevGrid.covering((-51.2, -51.2, 51.2, 51.2), (side, side))
    mimic = FeatureMimic({level: grid}, RegionConfig(test_point=test_point), FALSE_POSITIVES)
    with torch.no_grad():
        mimic.levels[level].spatial.weight.zero_()[0, 0, 1, 1] = 1
        mimic.levels[level].spatial.bias.zero_()
    teacher, student = formula_maps(side)
    heatmap, logits = formula_heatmaps()
    predictions = HeadOutput(heatmap=logits, regression=torch.zeros(2, 6, 10, 128, 128))
    targets = Targets(boxes=formula_boxes(), heatmap=heatmap)
    losses = mimic({level: teacher}, {level: student}, predictions, targets)
    for term, value in expected.items():
        key = f"mfd/{level}/{term}"
        assert_close((WEIGHTS[key] * losses[key]).item(), value, rtol=1e-5, atol=0)

    counts = foreground(targets.boxes, grid, "corner").mask.sum(dim=(1, 2, 3)).tolist()
    assert counts == ([65, 11] if side == 128 else [17, 4])
