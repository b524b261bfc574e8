"""Image and BEV augmentation against official BEVDepth (golden/bevdepth/augmentation.json).

The worked examples are those of docs/methods/bevdepth.md#worked-values;
there and in the golden file boxes are x, y, z of the centre,
length, width, height, yaw, vx, vy.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.geometry.boxes import transform_boxes, wrap_angle
from dualdistill.geometry.cameras import bev_augmentation, image_augmentation
from dualdistill.structures import Boxes

GOLDEN = Path(__file__).parent / "golden" / "bevdepth" / "augmentation.npz"
FINAL = (256, 704)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def as_boxes(rows: Tensor) -> Boxes:
    label = torch.zeros(len(rows), dtype=torch.long)
    return Boxes(center=rows[:, :3], size=rows[:, 3:6], yaw=rows[:, 6], velocity=rows[:, 7:], label=label)


def assert_same(actual: Boxes, rows: Tensor, atol: float) -> None:
    expected = as_boxes(rows)
    for name in ("center", "size", "velocity"):
        assert_close(getattr(actual, name), getattr(expected, name), atol=atol, rtol=1e-5)
    turned = wrap_angle(actual.yaw - expected.yaw)
    assert_close(turned, torch.zeros_like(turned), atol=atol, rtol=0)


def test_image_matrices_are_the_official_ones(golden):
    for params, expected in zip(golden["ida_params"].tolist(), golden["ida_mats"], strict=True):
        resize, _, _, x, y, _, _, flip, degrees = params
        matrix = image_augmentation(resize=resize, crop=(x, y), size=FINAL, flip=bool(flip), rotate_deg=degrees)
        assert_close(matrix, expected, atol=2e-4, rtol=1e-5)


def test_bev_matrices_and_boxes_are_the_official_ones(golden):
    rows = zip(
        golden["bda_params"].tolist(),
        golden["bda_mats"],
        golden["boxes_in"],
        golden["boxes_out"],
        strict=True,
    )
    for (degrees, scale, flip_x, flip_y), expected, before, after in rows:
        augmented_from_bev = bev_augmentation(
            angle=math.radians(degrees), scale=scale, flip_x=bool(flip_x), flip_y=bool(flip_y)
        )
        assert_close(augmented_from_bev, expected, atol=2e-4, rtol=1e-5)
        assert_same(transform_boxes(augmented_from_bev, as_boxes(before)), after, atol=2e-4)


def test_the_worked_image_matrices():
    first = image_augmentation(resize=0.44, crop=(0, 140), size=FINAL, flip=False, rotate_deg=0.0)
    assert_close(first, torch.tensor([[0.44, 0, 0, 0], [0, 0.44, 0, -140], [0, 0, 1, 0], [0, 0, 0, 1]]))
    second = image_augmentation(resize=0.5, crop=(37, 194), size=FINAL, flip=True, rotate_deg=5.4)
    rotation = torch.tensor([[-0.497781, 0.047054], [0.047054, 0.497781]])
    assert_close(second[:2, :2], rotation, atol=1e-6, rtol=0)
    assert_close(second[:2, 3], torch.tensor([708.9707, -229.1791]), atol=1e-4, rtol=0)


WORKED = [
    (
        (22.5, 1.05, True, False),
        ((-0.970073, 0.401818), (0.401818, 0.970073)),
        (-7.691647, 8.868544, -1.05, 4.725, 1.995, 1.68, 2.448894, -2.508403, 2.175526),
    ),
    (
        (-10.0, 0.97, False, True),
        ((0.955264, 0.168439), (0.168439, -0.955264)),
        (10.394829, -3.091930, -0.97, 4.365, 1.843, 1.552, -0.125467, 3.034229, -0.449947),
    ),
    (
        (15.0, 1.0, True, True),
        ((-0.965926, 0.258819), (-0.258819, -0.965926)),
        (-8.365163, -7.417819, -1.0, 4.5, 1.9, 1.6, -2.579793, -2.638958, -1.742383),
    ),
]


@pytest.mark.parametrize(("draw", "linear", "after"), WORKED)
def test_the_worked_bev_matrices_and_boxes(draw, linear, after):
    degrees, scale, flip_x, flip_y = draw
    augmented_from_bev = bev_augmentation(angle=math.radians(degrees), scale=scale, flip_x=flip_x, flip_y=flip_y)
    assert_close(augmented_from_bev[:2, :2], torch.tensor(linear), atol=1e-6, rtol=0)
    box = as_boxes(torch.tensor([[10, 5, -1, 4.5, 1.9, 1.6, 0.3, 3, 1]]))
    assert_same(transform_boxes(augmented_from_bev, box), torch.tensor([after]), atol=2e-6)
