"""Laws of the sweep accumulation (docs/methods/centerpoint.md#sweeps)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dualdistill.data.index import NuscenesIndex
from dualdistill.data.sweeps import (
    accumulate,
    choose_sweeps,
    key_from_sweeps,
    read_points,
    sweep_candidates,
    without_close_points,
)
from dualdistill.errors import UserError
from dualdistill.geometry.transforms import transform
from tests.data.tiny_root import TinyRoot


def test_a_static_world_stays_where_it_is_whatever_the_car_does(tiny_root: TinyRoot, tiny_index: NuscenesIndex) -> None:
    key = int(tiny_index.sample_lidar[5])
    points = accumulate(tiny_index, key, choose_sweeps(tiny_index, key, 10))
    expected = (tiny_root.world - tiny_index.global_from_sensor(key)[:3, 3]) @ tiny_index.global_from_sensor(key)[
        :3, :3
    ]
    static = torch.tensor(expected).float()
    assert len(points) == len(static) + 1 + 9 * len(static)  # the point on the car counts in the key frame only
    assert_close(points[: len(static), :3], static, atol=1e-4, rtol=0)
    sweeps = points[len(static) + 1 :, :3].view(9, -1, 3)
    assert_close(sweeps, static.expand(9, -1, -1), atol=2e-4, rtol=0)


def test_time_lags_are_seconds_before_the_key_frame(tiny_index: NuscenesIndex) -> None:
    key = int(tiny_index.sample_lidar[5])
    lags = accumulate(tiny_index, key, choose_sweeps(tiny_index, key, 10))[:, 4].unique()
    assert_close(lags, torch.arange(10) * 0.05, atol=1e-6, rtol=0)


def test_intensity_passes_and_the_ring_index_does_not(tiny_index: NuscenesIndex) -> None:
    key = int(tiny_index.sample_lidar[5])
    points = accumulate(tiny_index, key, choose_sweeps(tiny_index, key, 3))
    assert (points[:, 3] == 100).all()
    assert (points[:, 4] < 1).all()


def test_the_worked_example_of_a_car_that_drove_half_a_metre() -> None:
    key_from_global = torch.eye(4)
    global_from_sweep = torch.eye(4)
    global_from_sweep[1, 3] = -0.5
    moved = transform(key_from_global @ global_from_sweep, torch.tensor([[1.0, 10.0, 0.0]]))
    assert_close(moved, torch.tensor([[1.0, 9.5, 0.0]]))


def test_the_way_through_a_sweep_and_back_is_no_way(tiny_index: NuscenesIndex) -> None:
    key = int(tiny_index.sample_lidar[5])
    sweep = sweep_candidates(tiny_index, key, 5)[-1]
    there_and_back = key_from_sweeps(tiny_index, key, [sweep])[0] @ key_from_sweeps(tiny_index, sweep, [key])[0]
    assert_close(there_and_back, torch.eye(4, dtype=torch.float64), atol=1e-9, rtol=0)


def test_only_points_within_a_metre_on_both_axes_are_close() -> None:
    points = torch.tensor([[0.5, 0.5, 9.0], [0.5, 1.0, 0], [-0.9, -0.9, 0], [3.0, 0, 0], [1.0, 1.0, 0]])
    assert without_close_points(points).tolist() == points[[1, 3, 4]].tolist()


def test_at_test_time_the_nearest_sweeps_are_taken(tiny_index: NuscenesIndex) -> None:
    key = int(tiny_index.sample_lidar[5])
    assert choose_sweeps(tiny_index, key, 10) == sweep_candidates(tiny_index, key, 9)


def test_random_sweeps_are_nine_of_the_last_ten(tiny_index: NuscenesIndex) -> None:
    key = int(tiny_index.sample_lidar[5])
    ten = set(sweep_candidates(tiny_index, key, 10))
    left_out = set()
    for seed in range(100):
        rows = choose_sweeps(tiny_index, key, 10, np.random.default_rng(seed))
        assert len(rows) == 9
        left_out |= ten - set(rows)
    assert left_out == ten


def test_a_scene_starts_with_the_sweeps_it_has(tiny_root: TinyRoot, tiny_index: NuscenesIndex) -> None:
    first_of_second_scene = int(tiny_index.sample_lidar[6])
    assert choose_sweeps(tiny_index, first_of_second_scene, 10, np.random.default_rng(0)) == []
    assert len(accumulate(tiny_index, first_of_second_scene, [])) == len(tiny_root.world) + 1


def test_one_sweep_means_the_key_frame_alone(tiny_index: NuscenesIndex) -> None:
    key = int(tiny_index.sample_lidar[5])
    assert choose_sweeps(tiny_index, key, 1) == choose_sweeps(tiny_index, key, 1, np.random.default_rng(0)) == []


def test_a_file_that_was_cut_off_or_is_gone_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pcd.bin"
    path.write_bytes(bytes(59))
    with pytest.raises(UserError, match=r"a\.pcd\.bin is cut off or of another layout: 59 bytes"):
        read_points(path)
    with pytest.raises(UserError, match=r"gone\.bin"):
        read_points(tmp_path / "gone.bin")


@pytest.mark.nuscenes
def test_real_ground_lies_flat_through_all_sweeps(nuscenes_index: NuscenesIndex) -> None:
    key = int(nuscenes_index.sample_lidar[10])
    points = accumulate(nuscenes_index, key, choose_sweeps(nuscenes_index, key, 4))
    near = (points[:, :2].norm(dim=1) > 4) & (points[:, :2].norm(dim=1) < 8)
    heights = [points[near & (points[:, 4] == lag), 2].quantile(0.3) for lag in points[:, 4].unique()]
    assert len(heights) == 4
    assert_close(torch.stack(heights), torch.full((4,), -1.84), atol=0.15, rtol=0)
