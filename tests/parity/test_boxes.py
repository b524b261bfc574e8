"""Boxes against the LiDAR box classes of mmdetection3d, both conventions (golden/boxes/lidar_boxes.json)."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.geometry.boxes import (
    bev_corners,
    corners,
    footprints,
    points_in_boxes,
    transform_boxes,
    wrap_angle,
)
from dualdistill.geometry.transforms import rigid, transform
from dualdistill.structures import Boxes
from tests.geometry.reference import boxes_from_legacy, legacy_from_boxes, rotation_about_z

GOLDEN = Path(__file__).parent / "golden" / "boxes" / "lidar_boxes"
FACTS = json.loads(GOLDEN.with_suffix(".json").read_text())["hyperparameters"]
close = {"atol": 1e-4, "rtol": 0.0}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN.with_suffix(".npz"), allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture
def boxes(golden) -> Boxes:
    return boxes_from_legacy(golden["legacy.boxes"], golden["labels"])


def from_new(new: Tensor, label: Tensor) -> Boxes:
    """mmdetection3d 1.x: x, y, z of the bottom, length, width, height, yaw, vx, vy."""
    center = new[:, :3] + torch.stack([0 * new[:, 5], 0 * new[:, 5], new[:, 5] / 2], dim=1)
    return Boxes(center=center, size=new[:, 3:6], yaw=new[:, 6], velocity=new[:, 7:], label=label)


def assert_same_boxes(actual: Boxes, expected: Boxes) -> None:
    assert_close(actual.center, expected.center, **close)
    assert_close(actual.size, expected.size, **close)
    assert_close(wrap_angle(actual.yaw - expected.yaw), torch.zeros_like(actual.yaw), **close)
    assert_close(actual.velocity, expected.velocity, equal_nan=True, **close)


def sorted_corners(points: Tensor) -> Tensor:
    """The corner sets, each in an order of its own."""
    key = (points * points.new_tensor([1.0, 100.0, 10000.0])).sum(dim=-1)
    return points.gather(1, key.argsort(dim=1)[..., None].expand_as(points))


def test_a_legacy_box_and_a_new_box_become_the_same_box(golden, boxes):
    assert_same_boxes(boxes, from_new(golden["new.boxes"], golden["labels"]))
    assert_close(boxes.center, golden["legacy.gravity_center"], **close)


def test_the_way_back_to_legacy_boxes_is_the_way_we_came(golden, boxes):
    back, theta = legacy_from_boxes(boxes), golden["legacy.boxes"][:, 6]
    others = [0, 1, 2, 3, 4, 5, 7, 8]
    assert_close(back[:, others], golden["legacy.boxes"][:, others], **close)
    assert_close(wrap_angle(back[:, 6] - theta), torch.zeros_like(theta), **close)


def test_corners_are_those_of_both_conventions(golden, boxes):
    for convention in ("legacy", "new"):
        assert_close(sorted_corners(corners(boxes)), sorted_corners(golden[f"{convention}.corners"]), **close)


def test_footprints_and_their_corners_are_those_of_the_new_convention(golden, boxes):
    bev = golden["new.bev"]
    assert_close(footprints(boxes)[:, :4], bev[:, :4], **close)
    assert_close(wrap_angle(boxes.yaw - bev[:, 4]), torch.zeros(len(boxes)), **close)
    front = bev_corners(boxes)[:, :2].mean(dim=1)
    heading = torch.stack([bev[:, 4].cos(), bev[:, 4].sin()], dim=1)
    assert_close(front, bev[:, :2] + heading * bev[:, 2:3] / 2, **close)


def test_points_in_boxes_are_those_of_the_official_kernel(golden, boxes):
    inside = points_in_boxes(golden["points"], boxes)
    assert inside.any()
    assert torch.equal(inside.T, golden["legacy.point_in_box"].bool())


def turn(angle: float) -> Tensor:
    return rigid(rotation_about_z(torch.tensor(angle)), torch.zeros(3))


def test_rotating_counter_clockwise_is_the_new_rotation_and_the_legacy_one_backwards(golden, boxes):
    angle, labels = FACTS["rotate_angle"], golden["labels"]
    ccw, cw = transform_boxes(turn(angle), boxes), transform_boxes(turn(-angle), boxes)
    assert_same_boxes(ccw, from_new(golden["new.aug.rotate"], labels))
    assert_same_boxes(cw, boxes_from_legacy(golden["legacy.aug.rotate"], labels))
    assert_close(transform(turn(angle), golden["points"]), golden["new.aug.rotate_points"], **close)
    assert_close(transform(turn(-angle), golden["points"]), golden["legacy.aug.rotate_points"], **close)


@pytest.mark.parametrize(
    ("step", "matrix"),
    [
        ("flip_h", torch.diag(torch.tensor([1.0, -1, 1, 1]))),
        ("flip_v", torch.diag(torch.tensor([-1.0, 1, 1, 1]))),
        ("scale", torch.diag(torch.tensor([FACTS["scale"]] * 3 + [1.0]))),
        ("translate", rigid(torch.eye(3), torch.tensor(FACTS["translate"]))),
    ],
)
def test_flips_scale_and_translation_are_those_of_both_conventions(golden, boxes, step, matrix):
    moved = transform_boxes(matrix, boxes)
    assert_same_boxes(moved, boxes_from_legacy(golden[f"legacy.aug.{step}"], golden["labels"]))
    assert_same_boxes(moved, from_new(golden[f"new.aug.{step}"], golden["labels"]))


def test_theta_of_a_box_heading_along_minus_y_is_zero():
    heading_down = legacy_from_boxes(
        Boxes(
            center=torch.zeros(1, 3),
            size=torch.tensor([[4.0, 2, 1.5]]),
            yaw=torch.tensor([-math.pi / 2]),
            velocity=torch.zeros(1, 2),
            label=torch.zeros(1, dtype=torch.long),
        )
    )
    assert_close(heading_down[0, 6], torch.tensor(0.0), atol=1e-6, rtol=0)
