import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
from dualdistill.geometry.cameras import bev_augmentation
from dualdistill.geometry.grid import BevGrid
from dualdistill.geometry.transforms import invert_rigid, rigid, rotation_from_quaternion, transform
from dualdistill.structures import Boxes
from tests.geometry.reference import box_index_map, boxes_from_legacy, legacy_from_boxes

quick = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31 - 1)


def random_boxes(seed: int, count: int = 6, reach: float = 20.0) -> Boxes:
    generator = torch.Generator().manual_seed(seed)
    return Boxes(
        center=reach * (2 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 1),
        size=0.3 + 8 * torch.rand(count, 3, generator=generator, dtype=torch.float64),
        yaw=math.pi * (2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1),
        velocity=torch.randn(count, 2, generator=generator, dtype=torch.float64),
        label=torch.randint(10, (count,), generator=generator),
        score=torch.rand(count, generator=generator, dtype=torch.float64),
    )


def one_box(x=0.0, y=0.0, length=4.0, width=2.0, yaw=0.0, velocity=(0.0, 0.0)) -> Boxes:
    return Boxes(
        center=torch.tensor([[x, y, 0.0]]),
        size=torch.tensor([[length, width, 1.5]]),
        yaw=torch.tensor([yaw]),
        velocity=torch.tensor([velocity]),
        label=torch.zeros(1, dtype=torch.long),
    )


def random_similarity(seed: int) -> Tensor:
    """Any rotation about z, scale, flips and translation."""
    generator = torch.Generator().manual_seed(seed)
    angle, scale, flip_x, flip_y, *shift = torch.rand(7, generator=generator, dtype=torch.float64).tolist()
    matrix = bev_augmentation(
        angle=7 * angle - 3.5,
        scale=0.5 + scale,
        flip_x=flip_x < 0.5,
        flip_y=flip_y < 0.5,
        dtype=torch.float64,
    )
    matrix[:3, 3] = 10 * torch.tensor(shift, dtype=torch.float64)
    return matrix


def assert_same_place(a: Boxes, b: Boxes) -> None:
    for name in ("center", "size", "velocity"):
        assert_close(getattr(a, name), getattr(b, name), equal_nan=True)
    assert_close(wrap_angle(a.yaw - b.yaw), torch.zeros_like(a.yaw), atol=1e-9, rtol=0)


@quick
@given(st.floats(-1000, 1000, width=32))
def test_a_wrapped_angle_is_the_same_direction_from_minus_pi_up_to_but_not_pi(angle):
    for dtype in (torch.float32, torch.float64):
        raw = torch.tensor(angle, dtype=dtype)
        wrapped = wrap_angle(raw)
        assert -math.pi <= wrapped.item() < math.pi
        turns = ((raw.double() - wrapped.double()) / (2 * math.pi)).item()
        assert abs(turns - round(turns)) < 2e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_half_turns_wrap_to_minus_pi(dtype):
    turns = torch.tensor([math.pi, -math.pi, 3 * math.pi, -math.pi - 1e-9], dtype=torch.float64).to(dtype)
    wrapped = wrap_angle(turns)
    assert (wrapped < math.pi).all()
    assert_close(wrapped.abs(), torch.full_like(wrapped, math.pi), atol=1e-6, rtol=0)


def test_corners_of_a_box_along_x_are_where_they_are_said_to_be():
    front_left, front_right, rear_right, rear_left = bev_corners(one_box(x=10.0))[0].tolist()
    assert (front_left, front_right) == ([12.0, 1.0], [12.0, -1.0])
    assert (rear_right, rear_left) == ([8.0, -1.0], [8.0, 1.0])


@quick
@given(seeds)
def test_a_box_heads_for_the_middle_of_its_front_edge(seed):
    boxes = random_boxes(seed)
    front = bev_corners(boxes)[:, :2].mean(dim=1) - boxes.center[:, :2]
    assert_close(torch.atan2(front[:, 1], front[:, 0]), boxes.yaw)
    assert_close(front.norm(dim=1), boxes.size[:, 0] / 2)


@quick
@given(seeds)
def test_corners_stand_on_the_footprint_half_a_height_off_the_centre(seed):
    boxes = random_boxes(seed)
    bottom, top = corners(boxes).chunk(2, dim=1)
    assert_close(bottom[..., :2], bev_corners(boxes))
    assert_close(top[..., :2], bev_corners(boxes))
    half = boxes.size[:, 2:] / 2
    assert_close(bottom[..., 2], (boxes.center[:, 2:] - half).expand(-1, 4))
    assert_close(top[..., 2], (boxes.center[:, 2:] + half).expand(-1, 4))


@quick
@given(seeds)
def test_moving_a_box_moves_its_corners_and_its_front(seed):
    boxes, b_from_a = random_boxes(seed), random_similarity(seed)
    moved = transform_boxes(b_from_a, boxes)
    expected = transform(b_from_a, corners(boxes).flatten(0, 1)).unflatten(0, (len(boxes), 8))
    swapped = torch.linalg.det(b_from_a) < 0  # a mirror swaps left and right
    assert_close(corners(moved), expected[:, [1, 0, 3, 2, 5, 4, 7, 6]] if swapped else expected)


@quick
@given(seeds)
def test_velocity_is_the_motion_of_the_centre(seed):
    boxes, b_from_a = random_boxes(seed), random_similarity(seed)
    step = torch.cat([boxes.velocity, torch.zeros(len(boxes), 1, dtype=torch.float64)], dim=1)
    later = replace(boxes, center=boxes.center + step)
    moved, moved_later = transform_boxes(b_from_a, boxes), transform_boxes(b_from_a, later)
    assert_close(moved_later.center[:, :2] - moved.center[:, :2], moved.velocity)


@quick
@given(seeds)
def test_boxes_go_there_and_back(seed):
    boxes, b_from_a = random_boxes(seed), random_similarity(seed)
    assert_same_place(transform_boxes(b_from_a.inverse(), transform_boxes(b_from_a, boxes)), boxes)


@quick
@given(seeds)
def test_a_nearly_upright_sensor_leads_to_global_and_back(seed):
    generator = torch.Generator().manual_seed(seed)
    tilt = torch.tensor([1.0, 0.01, -0.012, 0.6], dtype=torch.float64)
    global_from_lidar = rigid(
        rotation_from_quaternion(tilt), 1000 * torch.randn(3, generator=generator, dtype=torch.float64)
    )
    boxes = random_boxes(seed)
    back = transform_boxes(invert_rigid(global_from_lidar), transform_boxes(global_from_lidar, boxes))
    assert_close(back.center, boxes.center)
    assert_close(wrap_angle(back.yaw - boxes.yaw), torch.zeros_like(boxes.yaw), atol=2e-3, rtol=0)
    assert_close(back.velocity, boxes.velocity, atol=5e-3, rtol=5e-3)


def test_an_unknown_velocity_stays_unknown_and_labels_and_scores_stay():
    boxes = replace(one_box(velocity=(math.nan, math.nan)), score=torch.tensor([0.7]))
    moved = transform_boxes(bev_augmentation(angle=0.3, scale=1.05, flip_x=True, flip_y=False), boxes)
    assert moved.velocity.isnan().all()
    assert moved.center.isfinite().all()
    assert moved.score is boxes.score
    assert moved.label is boxes.label


def test_a_transformed_box_has_the_wider_type():
    assert transform_boxes(torch.eye(4), one_box()).center.dtype == torch.float32
    moved = transform_boxes(torch.eye(4, dtype=torch.float64), one_box())
    assert {t.dtype for t in (moved.center, moved.size, moved.yaw, moved.velocity)} == {torch.float64}


@quick
@given(seeds)
def test_legacy_boxes_come_back_the_same(seed):
    boxes = random_boxes(seed)
    again = boxes_from_legacy(legacy_from_boxes(boxes), boxes.label)
    assert_same_place(again, boxes)
    assert torch.equal(again.label, boxes.label)


@quick
@given(seeds)
def test_a_box_holds_what_lies_inside_it_in_its_own_axes(seed):
    boxes = random_boxes(seed)
    inner = 1.9 * torch.rand(len(boxes), 40, 3, dtype=torch.float64) - 0.95
    outer = inner.clone()
    outer[..., 0] = inner[..., 0].sign() * (1.05 + inner[..., 0].abs())
    for local, expected in ((inner, True), (outer, False)):
        scaled = local * boxes.size[:, None] / 2
        x, y, z = scaled.unbind(dim=-1)
        cos, sin = boxes.yaw.cos()[:, None], boxes.yaw.sin()[:, None]
        points = boxes.center[:, None] + torch.stack([x * cos - y * sin, x * sin + y * cos, z], dim=-1)
        inside = points_in_boxes(points.flatten(0, 1), boxes).unflatten(1, (len(boxes), 40))
        own = torch.arange(len(boxes))
        assert (inside[own, own] == expected).all()


def test_faces_edges_and_corners_belong_to_the_box():
    signs = torch.tensor([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)])
    box = one_box()
    assert points_in_boxes(signs * box.size / 2, box).all()
    assert not points_in_boxes(signs[signs.any(dim=1)] * (box.size / 2 + 1e-5), box).any()


def test_no_boxes_or_no_points_hold_nothing():
    assert points_in_boxes(torch.zeros(5, 3), Boxes.empty()).shape == (0, 5)
    assert points_in_boxes(torch.zeros(0, 3), one_box()).shape == (1, 0)


def test_many_points_are_treated_like_few(monkeypatch):
    boxes, points = random_boxes(3, count=9), 12 * torch.randn(2000, 3, dtype=torch.float64)
    whole = points_in_boxes(points, boxes)
    monkeypatch.setattr("dualdistill.geometry.boxes._PAIRS_AT_ONCE", 64)
    assert whole.any()
    assert torch.equal(points_in_boxes(points, boxes), whole)


@pytest.mark.nuscenes
def test_counts_in_global_are_the_annotated_lidar_counts(nuscenes_root):
    def table(name):
        path = next(nuscenes_root.glob("v1.0-*")) / f"{name}.json"
        return {row["token"]: row for row in json.loads(path.read_text())}

    def pose(row):
        rotation = rotation_from_quaternion(torch.tensor(row["rotation"], dtype=torch.float64))
        return rigid(rotation, torch.tensor(row["translation"], dtype=torch.float64))

    sensors, poses, of_sample = table("calibrated_sensor"), table("ego_pose"), {}
    for row in table("sample_annotation").values():
        of_sample.setdefault(row["sample_token"], []).append(row)
    for sweep in table("sample_data").values():
        if not sweep["is_key_frame"] or "/LIDAR_TOP/" not in sweep["filename"]:
            continue
        raw = np.fromfile(nuscenes_root / sweep["filename"], dtype=np.float32).reshape(-1, 5)
        global_from_lidar = pose(poses[sweep["ego_pose_token"]]) @ pose(sensors[sweep["calibrated_sensor_token"]])
        rows = of_sample.get(sweep["sample_token"], [])
        rotations = torch.stack([pose(row)[:3, :3] for row in rows])
        sizes = torch.tensor([row["size"] for row in rows], dtype=torch.float64)
        boxes = Boxes(
            center=torch.tensor([row["translation"] for row in rows], dtype=torch.float64),
            size=sizes[:, [1, 0, 2]],
            yaw=torch.atan2(rotations[:, 1, 0], rotations[:, 0, 0]),
            velocity=torch.zeros(len(rows), 2, dtype=torch.float64),
            label=torch.zeros(len(rows), dtype=torch.long),
        )
        points = transform(global_from_lidar, torch.from_numpy(raw[:, :3].astype(np.float64)))
        assert points_in_boxes(points, boxes).sum(dim=1).tolist() == [row["num_lidar_pts"] for row in rows]


GRID = BevGrid(x_min=-12.0, y_min=-8.0, cell=0.8, width=30, height=20)


def owners_by_points(grid: BevGrid, boxes: Boxes, shift: float) -> Tensor:
    """The slow way: each test point at each box's own height."""
    x = grid.x_min + (torch.arange(grid.width, dtype=torch.float64) + shift) * grid.cell
    y = grid.y_min + (torch.arange(grid.height, dtype=torch.float64) + shift) * grid.cell
    points = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.zeros(grid.shape).double()], dim=-1).flatten(0, 1)
    flat = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    inside = points_in_boxes(points, replace(boxes, center=boxes.center * flat)).long()
    return torch.where(inside.any(dim=0), inside.argmax(dim=0), -1).unflatten(0, grid.shape)


@quick
@given(seeds)
def test_a_cell_belongs_to_the_first_box_that_holds_its_test_point(seed):
    boxes = random_boxes(seed, reach=10.0)
    assert torch.equal(box_index_map(GRID, boxes), owners_by_points(GRID, boxes, 0.5))
    assert torch.equal(box_index_map(GRID, boxes, "corner"), owners_by_points(GRID, boxes, 0.0))


def test_of_two_boxes_in_one_place_the_first_owns_the_cells():
    large, small = one_box(length=8.0, width=6.0), one_box(length=2.0, width=2.0)
    both = Boxes(
        **{
            name: torch.cat([getattr(small, name), getattr(large, name)])
            for name in ("center", "size", "yaw", "velocity", "label")
        }
    )
    owner = box_index_map(GRID, both)
    assert torch.equal(owner == 0, box_index_map(GRID, small) == 0)
    assert torch.equal(owner >= 0, box_index_map(GRID, large) == 0)
    assert (owner == 1).any()


def test_testing_corners_moves_the_mask_by_half_a_cell():
    moved = one_box(x=0.4, y=0.4, length=4.4, width=3.1, yaw=0.2)
    assert torch.equal(
        box_index_map(GRID, moved), box_index_map(GRID, one_box(length=4.4, width=3.1, yaw=0.2), "corner")
    )


def test_without_boxes_nobody_owns_a_cell():
    owner = box_index_map(GRID, Boxes.empty())
    assert owner.shape == GRID.shape
    assert (owner == -1).all()


def test_many_boxes_are_treated_like_few(monkeypatch):
    boxes = random_boxes(1, count=12, reach=10.0)
    whole = box_index_map(GRID, boxes)
    monkeypatch.setattr("dualdistill.geometry.boxes._PAIRS_AT_ONCE", 1500)
    assert torch.equal(box_index_map(GRID, boxes), whole)


def test_footprints_are_boxes_without_height():
    assert footprints(one_box(x=1.0, y=2.0, yaw=0.5)).tolist() == [[1.0, 2.0, 4.0, 2.0, 0.5]]
