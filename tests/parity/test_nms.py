"""Rotated IoU and suppression against the released kernels (golden/centerhead/nms.json)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.ops.nms import circle_nms, rotated_nms
from dualdistill.ops.rotated_iou import rotated_iou

GOLDEN = Path(__file__).parent / "golden" / "centerhead" / "nms.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture
def boxes(golden) -> Tensor:
    """Legacy rectangles (x, y, width, length, clockwise angle of the width's axis), as ours."""
    x, y, width, length, theta = golden["bev"].unbind(dim=1)
    return torch.stack([x, y, length, width, -theta - torch.pi / 2], dim=1)


def test_iou_is_that_of_the_released_kernel_and_of_exact_polygons(golden, boxes):
    assert_close(rotated_iou(boxes, boxes), golden["iou_official"], atol=1e-3, rtol=0)
    assert_close(rotated_iou(boxes, boxes), golden["iou_shapely"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("threshold", ["0.05", "0.2", "0.5"])
def test_rotated_nms_keeps_what_the_released_one_keeps(golden, boxes, threshold):
    kept = rotated_nms(boxes, golden["scores"], float(threshold), pre_max=1000, post_max=1000)
    assert kept.tolist() == golden[f"rotate_keep.{threshold}"].tolist()


def test_rotated_nms_lets_in_and_out_as_many_as_the_released_one(golden, boxes):
    kept = rotated_nms(boxes, golden["scores"], 0.2, pre_max=30, post_max=10)
    assert kept.tolist() == golden["rotate_keep_pre30_post10"].tolist()


@pytest.mark.parametrize("squared_radius", ["4", "12", "1", "0.175"])
def test_circle_nms_keeps_what_the_released_one_keeps(golden, boxes, squared_radius):
    kept = circle_nms(boxes[:, :2], golden["scores"], float(squared_radius), post_max=1000)
    assert kept.tolist() == golden[f"circle_keep.{squared_radius}"].tolist()


def test_circle_nms_lets_out_as_many_as_the_released_one(golden, boxes):
    kept = circle_nms(boxes[:, :2], golden["scores"], 4.0, post_max=7)
    assert kept.tolist() == golden["circle_keep_post7"].tolist()
