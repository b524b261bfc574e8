import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.center_training import center_targets, draw_gaussians, gaussian_radius
from dualdistill.structures import TASKS, Boxes
from tests.models.center_scenes import boxes_of, random_boxes

GRID = BevGrid.around(51.2, 0.8)
CONFIG = CenterHeadConfig()
CAR = (10.3, -4.7, -0.9, 4.6, 1.9, 1.6, 0.3, 3.0, 0.5)


def test_a_car_becomes_the_worked_target():
    targets = center_targets((boxes_of([CAR], [0]),), GRID, CONFIG)
    assert targets.index[0, 0, 0] == 58 * 0 + 7500 == 58 * 128 + 76
    expected = [0.875, 0.125, -0.9, 1.526056, 0.641854, 0.470004, 0.295520, 0.955336, 3.0, 0.5]
    assert_close(targets.vector[0, 0, 0], torch.tensor(expected), rtol=0, atol=1e-5)
    assert targets.mask.sum() == 1
    assert targets.heatmap[0, 0, 58, 76] == 1


def test_a_patch_of_radius_two_has_the_documented_weights():
    patch = draw_gaussians(torch.zeros(1, 5, 5), torch.tensor([0]), torch.tensor([[2, 2]]), torch.tensor([2]))[0]
    expected = {
        (0, 0): 1.0,
        (1, 0): 0.486752,
        (1, 1): 0.236928,
        (2, 0): 0.056135,
        (2, 1): 0.027324,
        (2, 2): 0.003151,
    }
    for (dx, dy), weight in expected.items():
        assert_close(patch[2 + dy, 2 + dx], torch.tensor(weight), rtol=0, atol=1e-6)
    assert_close(patch, patch.mT)
    assert_close(patch, patch.flip(0))


@pytest.mark.parametrize(
    ("length", "width", "cell", "radius"),
    [
        (4.6, 1.95, 0.8, 1.572),
        (6.93, 2.51, 0.8, 2.163),
        (11.1, 2.95, 0.8, 2.881),
        (12.29, 2.90, 0.8, 2.965),
        (11.1, 2.95, 0.6, 3.841),
        (12.29, 2.90, 0.6, 3.953),
    ],
)
def test_radii_of_typical_sizes(length, width, cell, radius):
    found = gaussian_radius(torch.tensor([length / cell]), torch.tensor([width / cell]), 0.1)
    assert_close(found, torch.tensor([radius]), rtol=0, atol=1e-3)


def slow_targets(boxes: tuple[Boxes, ...], grid: BevGrid, config: CenterHeadConfig):
    """Heat map, and (sample, task, slot) -> (index, vector), one box after the other."""
    heatmap = torch.zeros(len(boxes), 10, *grid.shape)
    slots = {}
    for sample, each in enumerate(boxes):
        first = 0
        for task, names in enumerate(TASKS):
            rows = [i for k in range(len(names)) for i in range(len(each)) if each.label[i] == first + k]
            first += len(names)
            for slot, i in enumerate(rows[: config.max_objects]):
                x = (each.center[i, 0].item() - grid.x_min) / grid.cell
                y = (each.center[i, 1].item() - grid.y_min) / grid.cell
                column, row = math.floor(x), math.floor(y)
                if not (0 <= column < grid.width and 0 <= row < grid.height) or (each.size[i] <= 0).any():
                    continue
                size = each.size[i, :2] / grid.cell
                radius = int(gaussian_radius(size[:1], size[1:], config.gaussian_overlap))
                radius = max(config.min_radius, radius)
                for v in range(max(0, row - radius), min(grid.height, row + radius + 1)):
                    for u in range(max(0, column - radius), min(grid.width, column + radius + 1)):
                        away = (u - column) ** 2 + (v - row) ** 2
                        value = math.exp(-away / (2 * ((2 * radius + 1) / 6) ** 2))
                        cell = heatmap[sample, each.label[i], v, u]
                        cell.copy_(cell.clamp(min=value))
                yaw, size = each.yaw[i].item(), each.size[i].log().tolist()
                codes = [x - column, y - row, each.center[i, 2].item(), *size, math.sin(yaw), math.cos(yaw)]
                slots[sample, task, slot] = (row * grid.width + column, [*codes, *each.velocity[i].tolist()])
    return heatmap, slots


@pytest.mark.parametrize("max_objects", [500, 3])
def test_targets_are_what_the_slow_loop_says(max_objects):
    grid = BevGrid(x_min=-9.0, y_min=-6.0, cell=0.5, width=40, height=23)  # boxes fall outside on every side
    config = CenterHeadConfig(max_objects=max_objects)
    boxes = tuple(random_boxes(count, seed=count, reach=12.0, apart=1.3) for count in (60, 0, 25))
    boxes[0].size[3, 1] = 0.0
    boxes[2].size[4] *= 4  # a radius past the smallest
    heatmap, slots = slow_targets(boxes, grid, config)
    targets = center_targets(boxes, grid, config)
    assert_close(targets.heatmap, heatmap)
    assert {tuple(where) for where in targets.mask.nonzero().tolist()} == slots.keys()
    assert len(slots) > 12
    for where, (index, vector) in slots.items():
        assert targets.index[where] == index
        assert_close(targets.vector[where], torch.tensor(vector), rtol=1e-5, atol=1e-5)


def test_a_batch_without_boxes_has_empty_targets():
    targets = center_targets((Boxes.empty(), Boxes.empty()), GRID, CONFIG)
    assert targets.heatmap.shape == (2, 10, 128, 128)
    assert not targets.heatmap.any()
    assert targets.mask.shape == (2, 6, 0)


def test_velocities_are_learnt_times_the_scale_of_their_sample():
    boxes = boxes_of([CAR], [0])
    targets = center_targets((boxes, boxes), GRID, CONFIG, velocity_scale=torch.tensor([0.5, 2.0]))
    assert_close(targets.vector[:, 0, 0, 8:], torch.tensor([[1.5, 0.25], [6.0, 1.0]]))


def test_an_unknown_velocity_stays_unknown():
    boxes = boxes_of([(*CAR[:7], math.nan, math.nan)], [0])
    vector = center_targets((boxes,), GRID, CONFIG).vector[0, 0, 0]
    assert vector[8:].isnan().all()
    assert vector[:8].isfinite().all()


def test_targets_of_a_mirrored_scene_are_mirrored():
    boxes = random_boxes(80, seed=1)
    mirror = torch.tensor([1.0, -1.0])
    mirrored = replace(
        boxes,
        center=boxes.center * torch.tensor([1.0, -1.0, 1.0]),
        yaw=-boxes.yaw,
        velocity=boxes.velocity * mirror,
    )
    one, other = (center_targets((each,), GRID, CONFIG) for each in (boxes, mirrored))
    assert_close(other.heatmap, one.heatmap.flip(2))
    assert_close(other.index // 128, torch.where(one.mask, 127 - one.index // 128, 0))
    sign = torch.tensor([1.0, -1, 1, 1, 1, 1, -1, 1, 1, -1])
    shift = torch.tensor([0.0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    expected = (one.vector * sign + shift)[one.mask]
    assert_close(other.vector[other.mask], expected, rtol=0, atol=1e-4)
