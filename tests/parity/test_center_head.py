"""Targets, losses, decoding and forward pass of the CenterPoint head against numbers of the released code.

Provenance: each golden .json names the repository and commit that made its numbers. They are in the legacy
box convention (theta = -yaw - pi/2, width before length); its codes become ours by a swap and two signs,
exactly.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.geometry.boxes import wrap_angle
from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_decode import decode
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.center_training import GROUPS, center_losses, center_targets, draw_gaussians, gaussian_radius
from dualdistill.ops.focal import gaussian_focal
from dualdistill.structures import TASKS, Boxes, HeadOutput, weighted_sum
from tests.convert.foreign import load_official_head
from tests.geometry.reference import boxes_from_legacy

GOLDEN = Path(__file__).parent / "golden"
LEGACY_ORDER = [0, 1, 2, 4, 3, 5, 7, 6, 8, 9]
"""Where our codes stand among the legacy ones."""
LEGACY_SIGN = torch.tensor([1.0, 1, 1, 1, 1, 1, -1, -1, 1, 1])
"""sin yaw = -cos theta, cos yaw = -sin theta."""


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def facts(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def from_legacy_codes(codes: Tensor, dim: int) -> Tensor:
    sign = LEGACY_SIGN.view([-1 if axis == dim % codes.ndim else 1 for axis in range(codes.ndim)])
    return codes.index_select(dim, torch.tensor(LEGACY_ORDER)) * sign


def samples(arrays: dict[str, Tensor], prefix: str = "") -> tuple[Boxes, ...]:
    return tuple(
        boxes_from_legacy(arrays[f"{prefix}boxes.{index}"], arrays[f"{prefix}labels.{index}"].long())
        for index in range(sum(key.startswith(f"{prefix}boxes.") for key in arrays))
    )


def packed(arrays: dict[str, Tensor]) -> HeadOutput:
    codes = torch.stack([arrays[f"anno_pred.{task}"] for task in range(len(TASKS))], dim=1)
    logits = torch.cat([arrays[f"heatmap_logits.{task}"] for task in range(len(TASKS))], dim=1)
    return HeadOutput(heatmap=logits, regression=from_legacy_codes(codes, 2))


# ------------------------------------------------------------------------------------ targets


def test_the_gaussian_radius_is_the_released_one():
    arrays = golden("centerhead/gaussian")
    for column, overlap in enumerate(arrays["overlap"].tolist()):
        ours = gaussian_radius(arrays["height"], arrays["width"], overlap)
        assert_close(ours, arrays["radius"][:, column], rtol=1e-5, atol=1e-5)


def test_the_gaussian_radius_is_that_of_the_original_centerpoint_too():
    arrays = golden("centerpoint/cp_losses")
    ours = gaussian_radius(arrays["radius_h"], arrays["radius_w"], 0.1)
    assert_close(ours, arrays["radius"], rtol=1e-5, atol=1e-5)


def test_gaussians_are_drawn_as_in_the_released_code():
    arrays = golden("centerhead/gaussian")
    drawn = arrays["draw.centers_xyr"].long()
    ours = draw_gaussians(torch.zeros(1, 20, 23), torch.zeros(len(drawn)).long(), drawn[:, :2], drawn[:, 2])
    assert_close(ours[0], arrays["draw.heatmap"])


LEGACY_GRID = BevGrid.around(12.8, 0.8)


def below_the_edge(boxes: Boxes) -> Tensor:
    """Boxes that the released code pulls into the map by truncating toward zero, and ours leaves out."""
    cell = LEGACY_GRID.coordinates(boxes.center[:, :2])
    return (cell.trunc() != cell.floor()).any(dim=1) & LEGACY_GRID.inside(cell.trunc().long())


@pytest.mark.parametrize(("prefix", "max_objects"), [("", 500), ("trunc.", 5)])
def test_targets_are_the_released_ones(prefix, max_objects):
    arrays = golden("centerhead/targets")
    boxes = samples(arrays)
    assert sum(int(below_the_edge(each).sum()) for each in boxes) == 2
    # Put into the cell that truncation gives them, these two must draw and fill their slots as recorded
    # there.
    moved = tuple(pulled_in(each) for each in boxes)
    ours = center_targets(moved, LEGACY_GRID, CenterHeadConfig(max_objects=max_objects))
    mask = arrays[f"{prefix}mask"].bool()
    slots = mask.shape[2]
    assert_close(ours.heatmap, arrays[f"{prefix}heatmap"], rtol=1e-5, atol=1e-5)
    assert_close(ours.mask[..., :slots], mask)
    assert not ours.mask[..., slots:].any()
    assert_close(ours.index[..., :slots][mask], arrays[f"{prefix}ind"].long()[mask])
    expected = from_legacy_codes(arrays[f"{prefix}anno_box"], -1)[mask]
    found = ours.vector[..., :slots, :][mask]
    negative = (expected[:, :2] < 0).any(dim=1)  # offsets of those that were below the edge
    assert_close(found[:, 2:], expected[:, 2:], rtol=1e-5, atol=1e-5, equal_nan=True)
    assert_close(found[~negative, :2], expected[~negative, :2], rtol=1e-5, atol=1e-5)


def pulled_in(boxes: Boxes) -> Boxes:
    center = boxes.center.clone()
    low = torch.tensor([LEGACY_GRID.x_min, LEGACY_GRID.y_min])
    center[:, :2] = torch.where(below_the_edge(boxes)[:, None], center[:, :2].maximum(low), center[:, :2])
    return Boxes(center=center, size=boxes.size, yaw=boxes.yaw, velocity=boxes.velocity, label=boxes.label)


def test_boxes_below_the_lower_edge_are_left_out_where_the_released_code_keeps_them():
    arrays = golden("centerhead/targets")
    ours = center_targets(samples(arrays), LEGACY_GRID, CenterHeadConfig())
    assert int(arrays["mask"].sum()) - int(ours.mask.sum()) == 2


# ------------------------------------------------------------------------------------ losses


def test_the_focal_loss_and_its_gradient_are_the_released_ones():
    arrays = golden("centerhead/loss")
    inside = (arrays["focal.pred"] > 1e-4) & (arrays["focal.pred"] < 1 - 1e-4)  # ours is clamped to these
    predicted, target = (arrays[f"focal.{name}"][inside].double() for name in ("pred", "target"))
    loss = gaussian_focal(predicted.requires_grad_(), target)
    assert_close(loss.float(), arrays["focal.loss"][inside], rtol=1e-4, atol=1e-6)
    (gradient,) = torch.autograd.grad(loss.sum(), predicted)
    assert_close(gradient.float(), arrays["focal.grad"][inside], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("case", "velocity_weight"), [("task_specific", 1.0), ("velweight0.2", 0.2)])
def test_losses_are_the_released_ones(case, velocity_weight):
    arrays, scalars = golden("centerhead/loss"), facts("centerhead/loss")["scalars"]
    config = CenterHeadConfig(velocity_weight=velocity_weight)
    targets = center_targets(samples(arrays), BevGrid.around(6.4, 0.8), config)
    losses = center_losses(packed(arrays), targets)
    released = ("heatmap", "xy", "z", "whl", "yaw", "vel")
    for name, theirs in zip(("heatmap", *GROUPS), released, strict=True):
        expected = sum(scalars[f"{case}/task{task}.loss_{theirs}"] for task in range(len(TASKS)))
        assert_close(config.weights[name] * losses[name], torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_gradients_of_the_losses_are_the_released_ones():
    arrays = golden("centerhead/loss")
    config = CenterHeadConfig(velocity_weight=0.2)
    output = packed(arrays)
    output.heatmap.requires_grad_()
    output.regression.requires_grad_()
    targets = center_targets(samples(arrays), BevGrid.around(6.4, 0.8), config)
    weighted_sum(center_losses(output, targets), config.weights).backward()
    first = 0
    for task, names in enumerate(TASKS):
        ours = output.heatmap.grad[:, first : first + len(names)]
        first += len(names)
        for kind, gradient in (("heatmap", ours), ("anno", output.regression.grad[:, task])):
            expected = arrays.get(f"velweight0.2.grad_{kind}.{task}")
            if expected is not None:
                expected = from_legacy_codes(expected, 1) if kind == "anno" else expected
                assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


# ------------------------------------------------------------------------------------ decode

DECODE_GRID = BevGrid.around(9.6, 0.8)
NEAR = (-8.64, -8.64, -4.0, 8.64, 8.64, 3.0)


def assert_same_boxes(ours: Boxes, arrays: dict[str, Tensor], prefix: str, labels: str = "labels") -> None:
    expected = boxes_from_legacy(arrays[f"{prefix}.boxes"], arrays[f"{prefix}.{labels}"].long())
    assert len(ours) == len(expected)
    assert_close(ours.label, expected.label)
    for name in ("center", "size", "velocity"):
        assert_close(getattr(ours, name), getattr(expected, name), rtol=1e-4, atol=1e-4)
    assert wrap_angle(ours.yaw - expected.yaw).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("case", "config"),
    [
        ("rotate", CenterHeadConfig(center_range=NEAR)),
        ("circle", CenterHeadConfig(center_range=NEAR, nms="circle")),
        ("scale_nms", CenterHeadConfig(center_range=NEAR, nms="scale")),
        ("thr0.3", CenterHeadConfig(center_range=NEAR, score_threshold=0.3)),
        ("rotate_pre20_post5", CenterHeadConfig(center_range=NEAR, nms_candidates=20, nms_survivors=5)),
    ],
)
def test_detections_are_the_released_ones(case, config):
    arrays = golden("centerhead/decode")
    (ours,) = decode(packed(arrays), DECODE_GRID, config)
    assert_close(ours.score, arrays[f"{case}.scores"], rtol=1e-4, atol=1e-6)
    assert_same_boxes(ours, arrays, case)


# ---------------------------------------------------------------------------------- head, and pseudo labels

CRD_GRID = BevGrid.around(9.6, 0.8)


def crd_head():
    head = CenterHeadConfig(shared_channels=8, head_channels=8).build(in_channels=12)
    weights = golden("crd/crd_head_weights")
    state = {name.removeprefix("head."): value for name, value in weights.items()}
    # The archive holds these counters as vectors of one.
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    load_official_head(head, state)
    return head.eval()


def test_a_head_with_released_weights_answers_as_the_released_head():
    arrays = golden("crd/crd_inputs")
    with torch.no_grad():
        output = crd_head()(arrays["teacher_feat"])
    assert_close(output.heatmap, arrays["teacher_heatmap_logits"], rtol=1e-4, atol=1e-5)
    expected = torch.cat([arrays[f"teacher_task0.{name}"] for name in ("reg", "height", "dim", "rot", "vel")], 1)
    assert_close(output.regression[:, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.1])
def test_pseudo_labels_are_the_released_ones_at_every_temperature(temperature):
    arrays, targets = golden("crd/crd_inputs"), golden("crd/crd_targets")
    with torch.no_grad():
        legacy = crd_head()(arrays["teacher_feat"])
    output = HeadOutput(heatmap=legacy.heatmap, regression=from_legacy_codes(legacy.regression, 2))
    for index, ours in enumerate(decode(output, CRD_GRID, CenterHeadConfig(), temperature=temperature)):
        case = {f"x.{name}": targets[f"T{temperature}.{name}.{index}"] for name in ("boxes", "labels", "scores")}
        sharpened = (ours.score.logit() / temperature).sigmoid()
        assert_close(sharpened, case["x.scores"], rtol=1e-4, atol=1e-5)
        assert_same_boxes(ours, case, "x")
