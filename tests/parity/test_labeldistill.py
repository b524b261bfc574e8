"""LabelDistill against recorded numbers of the released code (sanmin0312/LabelDistill at 274ab26d, CPU, float32).

Label maps are drawn with boxes out of range, as released.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dualdistill.distill.label_encoder import LabelEncoderConfig, LabelMaps, label_maps
from dualdistill.distill.labeldistill import adaptor, masked_squares, object_mask, response_losses
from dualdistill.distill.shapes import BevShapes
from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.center_training import center_targets
from dualdistill.structures import TASK_OF_CLASS, Boxes, HeadOutput, Targets

GOLDEN = Path(__file__).parent / "golden" / "labeldistill"


def recorded(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def scalars(name: str) -> dict[str, float]:
    return json.loads((GOLDEN / f"{name}.json").read_text())["scalars"]


def recorded_boxes(arrays: dict[str, torch.Tensor]) -> tuple[Boxes, ...]:
    def boxes(values: torch.Tensor, label: torch.Tensor) -> Boxes:
        return Boxes(
            center=values[:, :3], size=values[:, 3:6], yaw=values[:, 6], velocity=values[:, 7:], label=label.long()
        )

    return tuple(boxes(arrays[f"boxes.{sample}"], arrays[f"labels.{sample}"]) for sample in range(2))


def renamed(prefix: str, names: dict[str, str], arrays: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The recorded weights below `prefix`, parts of their names replaced by ours."""
    state = {}
    for key, value in arrays.items():
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            for theirs, ours in names.items():
                name = name.replace(theirs, ours)
            state[name] = value.long().squeeze() if name.endswith("num_batches_tracked") else value
    return state


def test_label_maps_are_the_released_ones_cell_by_cell():
    arrays = recorded("rasterise")
    maps = label_maps(recorded_boxes(arrays), BevGrid.around(9.6, 0.8), paint_out_of_range=True)
    assert_close(maps.klass.any(dim=-1), arrays["bev_mask"].bool(), rtol=0, atol=0)
    assert_close(maps.klass, arrays["bev_label"], rtol=0, atol=0)
    assert_close(maps.box, arrays["bev_box"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_label_encoder_is_the_released_one(mode):
    arrays = recorded("label_encoder")
    shapes = BevShapes(
        canvas=(1, 24, 24), stages=((6, 12, 12), (8, 6, 6)), neck=(1, 12, 12), extent=(-4.8, -4.8, 4.8, 4.8)
    )
    encoder = LabelEncoderConfig(hidden_channels=12).build(teacher=shapes)
    names = {
        "mlp_box": "of_box",
        "mlp_label": "of_klass",
        "mlp2": "of_both",
        "fc1": "0",
        "fc2": "2",
        "ln2": "norm",
        "conv1.": "mix.",
        "mix.mix.": "mix.conv1.",
        ".bn": ".norm",
        "conv_blocks": "stages",
    }
    encoder.load_state_dict(renamed("w.", names, arrays))
    encoder.train(mode == "train")
    outputs = encoder.encode(LabelMaps(box=arrays["bev_box"], klass=arrays["bev_label"]))
    for level, output in enumerate(outputs):
        assert_close(output, arrays[f"{mode}.out{level}"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("case", "binary"), [("lidar_soft", False), ("label_binary", True)])
def test_feature_losses_and_their_gradients_are_the_released_ones(case, binary):
    arrays = recorded("feature_loss")
    total, maps = torch.zeros(()), []
    for level, (channels, out) in enumerate([(4, 6), (5, 8)]):
        adapt = adaptor(channels, out)
        adapt.layers.load_state_dict(renamed(f"w.blocks.{level}.", {".bn": ".norm"}, arrays))
        features = arrays[f"x{level}"].requires_grad_()
        mask = object_mask(arrays["heatmap"], features.shape[-2:])
        adapted = adapt(features)
        if level == 1:
            assert_close(adapted, arrays["out1"], rtol=1e-3, atol=1e-5)
        total = total + masked_squares(adapted - arrays[f"target{level}"], (mask > 0).float() if binary else mask)
        maps.append(features)
    assert_close(total.item(), scalars("feature_loss")[case], rtol=1e-4, atol=0)
    total.backward()
    for level, features in enumerate(maps):
        assert_close(features.grad, arrays[f"{case}.grad_x{level}"], rtol=1e-3, atol=1e-5)


def test_response_losses_are_the_released_ones():
    """Box codes are recorded for two tasks only; between them lie heat map losses of one task each."""
    arrays, expected = recorded("response_loss"), scalars("response_loss")
    grid, boxes = BevGrid.around(6.4, 0.8), recorded_boxes(arrays)
    truth = center_targets(boxes, grid, CenterHeadConfig()).heatmap

    def answers(who: str) -> HeadOutput:
        regression = torch.zeros(2, 6, 10, *grid.shape)
        for task in (0, 4):
            regression[:, task] = arrays[f"{who}_anno.{task}"]
        heatmap = torch.cat([arrays[f"{who}_heatmap.{task}"] for task in range(6)], dim=1)
        return HeadOutput(heatmap=heatmap, regression=regression)

    def boxes_of_task(task: int) -> tuple[Boxes, ...]:
        return tuple(
            each.select(torch.tensor([TASK_OF_CLASS[k] == task for k in each.label], dtype=torch.bool))
            for each in boxes
        )

    losses = response_losses(answers("teacher"), answers("student"), Targets(boxes=boxes, heatmap=truth), grid)
    per_task = [expected[f"task{task}/response_heatmap_only"] for task in range(6)]
    assert_close(losses["heatmap"].item(), sum(per_task), rtol=2e-5, atol=0)
    for task in (0, 4):
        targets = Targets(boxes=boxes_of_task(task), heatmap=truth)
        losses = response_losses(answers("teacher"), answers("student"), targets, grid)
        box = sum(loss for name, loss in losses.items() if name != "heatmap")
        assert_close((per_task[task] + 0.25 * box).item(), expected[f"task{task}/response"], rtol=2e-5, atol=0)
