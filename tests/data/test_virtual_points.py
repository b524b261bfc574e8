"""Laws of painting and lifting (docs/methods/mvp.md#worked-values)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from dualdistill.data.virtual_points.complete import CompletedSweep, complete_sweep, generator_of
from dualdistill.data.virtual_points.masks import PAINT_CLASSES, ImageInstances
from dualdistill.geometry.cameras import project
from dualdistill.geometry.transforms import transform

HEIGHT, WIDTH = 90, 160
FORWARD = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]).double()
"""Camera from LiDAR: the camera looks along the LiDAR's y."""
INTRINSICS = torch.tensor([[120.0, 0, 80], [0, 120, 45], [0, 0, 1]]).double()


def turned(degrees: float) -> Tensor:
    """Camera from LiDAR of a camera turned to the left, and a little off the LiDAR."""
    angle = math.radians(degrees)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turn[:3, 3] = torch.tensor([0.1, -0.2, 0.3])
    return FORWARD @ turn


def instances(masks: list[Tensor], names: list[str], scores: list[float] | None = None) -> ImageInstances:
    return ImageInstances.of(torch.stack(masks), names, torch.tensor(scores or [1.0] * len(masks)))


def rectangle(top: int, bottom: int, left: int, right: int) -> Tensor:
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def one_camera(points: Tensor, found: ImageInstances, seed: int = 0) -> CompletedSweep:
    return complete_sweep(points, [found], FORWARD[None], INTRINSICS[None], np.random.default_rng(seed))


def seen_at(*pixels: tuple[float, float, float]) -> Tensor:
    """LiDAR points at (u, v, depth) of the one camera, intensity 7."""
    uvd = torch.tensor(pixels).double()
    rays = torch.cat([uvd[:, :2], torch.ones(len(uvd), 1)], dim=1) @ torch.linalg.inv(INTRINSICS).mT
    xyz = transform(torch.linalg.inv(FORWARD), rays * uvd[:, 2:])
    return torch.cat([xyz, torch.full((len(uvd), 1), 7.0)], dim=1).float()


def random_scene(seed: int) -> tuple[Tensor, list[ImageInstances], Tensor, Tensor]:
    """Points all around, and two cameras that see random, overlapping boxes as masks."""
    generator = np.random.default_rng(seed)
    points = torch.from_numpy(generator.uniform([-20, -20, -3, 0], [20, 20, 3, 255], (400, 4))).float()
    cameras = []
    for _ in range(2):
        masks, names = [], []
        for _ in range(int(generator.integers(1, 6))):
            top, left = int(generator.integers(0, 70)), int(generator.integers(0, 140))
            height, width = int(generator.integers(1, 20)), int(generator.integers(1, 20))
            masks.append(rectangle(top, top + height, left, left + width))
            names.append(str(generator.choice(PAINT_CLASSES)))
        cameras.append(instances(masks, names, generator.uniform(0.1, 1, len(masks)).tolist()))
    return points, cameras, torch.stack([FORWARD, turned(70)]), torch.stack([INTRINSICS, INTRINSICS])


def test_a_pixel_is_lifted_to_the_depth_of_its_neighbour() -> None:
    intrinsics = torch.tensor([[1000.0, 0, 800], [0, 1000, 450], [0, 0, 1]])
    mask = torch.zeros(900, 1600, dtype=torch.bool)
    mask[500, 900] = mask[505, 910] = True
    found = instances([mask], ["bus"], [0.5])
    points = torch.tensor([[2.0, 20, -1, 9]])
    sweep = complete_sweep(points, [found], FORWARD[None], intrinsics[None], np.random.default_rng(0))
    places = sweep.virtual[:, :3].unique(dim=0)
    assert_close(places, torch.tensor([[2.0, 20, -1], [2.2, 20, -1.1]]))
    label = torch.zeros(11)
    label[PAINT_CLASSES.index("bus")], label[10] = 1, 0.5
    assert_close(sweep.virtual[:, 3:], label.expand(50, -1))
    assert_close(sweep.painted, torch.cat([points, label[None]], dim=1))


@given(st.integers(0, 2**31))
def test_virtual_points_project_onto_pixels_of_a_mask_at_the_depth_of_one_of_its_points(seed: int) -> None:
    points, cameras, camera_from_lidar, intrinsics = random_scene(seed)
    sweep = complete_sweep(points, cameras, camera_from_lidar, intrinsics, np.random.default_rng(seed))
    explained = torch.zeros(len(sweep.virtual), dtype=torch.bool)
    for found, matrix, pinhole in zip(cameras, camera_from_lidar, intrinsics, strict=True):
        u, v, depth = project(transform(matrix, sweep.virtual[:, :3].double()), pinhole).unbind(dim=1)
        measured = project(transform(matrix, points[:, :3].double()), pinhole)
        for mask, label in zip(found.masks, found.labels, strict=True):
            inside = mask.nonzero().flip(1).double()
            on_pixel = (torch.cdist(torch.stack([u, v], dim=1), inside).amin(dim=1) < 1e-2) & (depth > 0)
            floored = measured.floor().long()
            valid = (measured[:, 2] > 0) & (floored[:, :2] > 0).all(dim=1)
            valid &= (floored[:, 0] < WIDTH) & (floored[:, 1] < HEIGHT)
            own = measured[valid][mask[floored[valid, 1], floored[valid, 0]]]
            if len(own):
                same_depth = (depth[:, None] - own[None, :, 2]).abs().amin(dim=1) < 1e-4
                explained |= on_pixel & same_depth & (sweep.virtual[:, 3:] == label).all(dim=1)
    assert explained.all()


@given(st.integers(0, 2**31))
def test_painted_points_are_copies_of_the_raw_ones(seed: int) -> None:
    points, cameras, camera_from_lidar, intrinsics = random_scene(seed)
    painted = complete_sweep(points, cameras, camera_from_lidar, intrinsics, np.random.default_rng(seed))
    assert torch.equal(painted.painted[:, :4], points[painted.painted_rows])
    assert (painted.painted_rows.diff() > 0).all()
    assert (painted.painted[:, 4:14].sum(dim=1) >= 1).all()
    assert ((painted.painted[:, 14] > 0) & (painted.painted[:, 14] <= 1)).all()


def test_a_mask_of_seven_pixels_gives_fifty_points_of_which_at_most_seven_differ() -> None:
    found = instances([rectangle(10, 11, 20, 27)], ["car"])
    sweep = one_camera(seen_at((22.5, 10.5, 8)), found)
    assert len(sweep.virtual) == 50
    distinct, count = sweep.virtual.unique(dim=0, return_counts=True)
    assert len(distinct) == 7
    assert sorted(count.tolist()) == [1] * 6 + [44]


def test_a_large_mask_gives_fifty_different_points() -> None:
    sweep = one_camera(seen_at((50.5, 50.5, 8)), instances([rectangle(40, 60, 40, 60)], ["car"]))
    assert len(sweep.virtual.unique(dim=0)) == 50


def test_instances_without_a_point_give_nothing() -> None:
    found = instances([rectangle(10, 20, 20, 30), rectangle(50, 60, 20, 30)], ["car", "truck"])
    sweep = one_camera(seen_at((25.5, 55.5, 8), (100.5, 10.5, 5)), found)
    assert len(sweep.virtual) == 50
    assert (sweep.virtual[:, 3 + PAINT_CLASSES.index("truck")] == 1).all()
    assert sweep.painted_rows.tolist() == [0]


def test_of_two_overlapping_masks_the_first_takes_the_point() -> None:
    inner, outer = rectangle(12, 18, 22, 28), rectangle(10, 20, 20, 30)
    sweep = one_camera(seen_at((25.5, 15.5, 8)), instances([outer, inner], ["bus", "bicycle"]))
    assert len(sweep.virtual) == 50  # the inner one has no point of its own
    assert (sweep.virtual[:, 3 + PAINT_CLASSES.index("bus")] == 1).all()
    assert sweep.painted[:, 4:14].argmax(dim=1).tolist() == [PAINT_CLASSES.index("bus")]


def test_each_pixel_takes_the_depth_of_the_nearer_point_of_its_own_mask() -> None:
    found = instances([rectangle(40, 41, 40, 60), rectangle(41, 42, 40, 60)], ["car", "truck"])
    # Nearest to the right half of the first mask is a point of the second, which must not count.
    points = seen_at((41.5, 40.5, 8), (50.5, 40.5, 12), (58.5, 41.5, 30))
    sweep = one_camera(points, found)
    car = sweep.virtual[:, 3] == 1
    u, _, depth = project(transform(FORWARD, sweep.virtual[car, :3].double()), INTRINSICS).unbind(dim=1)
    assert_close(depth, torch.where(u < 45.5, 8.0, 12.0).double(), atol=1e-4, rtol=0)


def test_a_point_seen_by_two_cameras_has_both_classes_and_the_larger_score() -> None:
    points = seen_at((80.5, 45.5, 10))
    whole = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    cameras = [instances([whole], ["car"], [0.4]), instances([whole], ["truck"], [0.9])]
    matrices, pinholes = torch.stack([FORWARD, turned(5)]), torch.stack([INTRINSICS, INTRINSICS])
    sweep = complete_sweep(points, cameras, matrices, pinholes, np.random.default_rng(0))
    expected = torch.zeros(1, 11)
    expected[0, [0, 1, 10]] = torch.tensor([1, 1, 0.9])
    assert_close(sweep.painted[:, 4:], expected)
    assert len(sweep.virtual) == 100


@pytest.mark.parametrize("place", [(0.5, 45.5, 8), (45.5, 0.5, 8), (160.5, 45.5, 8), (45.5, 90.5, 8), (45.5, 45.5, -8)])
def test_points_at_the_images_first_row_and_column_outside_it_or_behind_the_camera_are_not_seen(
    place: tuple[float, float, float],
) -> None:
    whole = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    sweep = one_camera(seen_at(place), instances([whole], ["car"]))
    assert (len(sweep.virtual), len(sweep.painted), len(sweep.painted_rows)) == (0, 0, 0)


def test_without_masks_or_without_points_there_is_nothing() -> None:
    empty = ImageInstances.none((HEIGHT, WIDTH))
    for sweep in (
        one_camera(seen_at((50.5, 50.5, 8)), empty),
        one_camera(torch.zeros(0, 4), instances([rectangle(1, 9, 1, 9)], ["car"])),
    ):
        assert sweep.virtual.shape == (0, 14)
        assert sweep.painted.shape == (0, 15)
        assert sweep.painted_rows.shape == (0,)


def test_draws_depend_on_seed_and_file_alone() -> None:
    points, cameras, camera_from_lidar, intrinsics = random_scene(3)

    def virtual(seed: int, filename: str) -> Tensor:
        generator = generator_of(seed, filename)
        return complete_sweep(points, cameras, camera_from_lidar, intrinsics, generator).virtual

    assert torch.equal(virtual(0, "a.bin"), virtual(0, "a.bin"))
    assert not torch.equal(virtual(0, "a.bin"), virtual(1, "a.bin"))
    assert not torch.equal(virtual(0, "a.bin"), virtual(0, "b.bin"))


def test_instances_of_other_classes_and_empty_masks_are_left_out() -> None:
    masks = [rectangle(1, 5, 1, 5), rectangle(0, 0, 0, 0), rectangle(1, 5, 1, 5)]
    found = instances(masks, ["zebra", "car", "barrier"], [0.9, 0.8, 0.7])
    assert found.klass.tolist() == [PAINT_CLASSES.index("barrier")]
    assert_close(found.score, torch.tensor([0.7]))
