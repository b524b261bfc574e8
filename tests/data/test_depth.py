"""Laws of the depth labels."""

import itertools
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.data.depth import depth_labels, last_in_pixels
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.sweeps import read_points
from dualdistill.geometry.cameras import image_augmentation

INTRINSICS = torch.tensor([[100.0, 0, 80], [0, 100, 45], [0, 0, 1]])
STORED, IMAGE, STRIDE, RANGE = (90, 160), (64, 128), 8, (1.0, 60.0)
VARIANTS: tuple[Literal["nearest", "official"], ...] = ("nearest", "official")


def labels(points: Tensor, variant: Literal["nearest", "official"], matrix: Tensor | None = None) -> Tensor:
    matrix = torch.eye(4) if matrix is None else matrix
    return depth_labels(
        points,
        torch.eye(4)[None],
        INTRINSICS[None],
        matrix[None],
        stored_size=STORED,
        image_size=IMAGE,
        stride=STRIDE,
        depth_range=RANGE,
        variant=variant,
    )[0]


def brute_force(points: Tensor, variant: str, matrix: Tensor) -> Tensor:
    """The definition, point by point."""
    cells = torch.zeros(IMAGE[0] // STRIDE, IMAGE[1] // STRIDE)
    pixels: dict[tuple[int, int], float] = {}
    for point in points.double():
        u, v, depth = (INTRINSICS.double() @ point).tolist()
        if depth <= 0:
            continue
        u, v = u / depth, v / depth
        if variant == "official" and not (1 < u < STORED[1] - 1 and 1 < v < STORED[0] - 1):
            continue
        x, y = (matrix.double() @ torch.tensor([u, v, depth, 1.0], dtype=torch.float64))[:2].tolist()
        if variant == "official":
            if 0 <= int(x) < IMAGE[1] and 0 <= int(y) < IMAGE[0]:
                pixels[int(y), int(x)] = depth
            continue
        column, row = round(x / STRIDE), round(y / STRIDE)
        if RANGE[0] <= depth < RANGE[1] and 0 <= column < cells.shape[1] and 0 <= row < cells.shape[0]:
            cells[row, column] = min(depth, cells[row, column].item() or depth)
    for (y, x), depth in pixels.items():
        row, column = y // STRIDE, x // STRIDE
        cells[row, column] = min(depth, cells[row, column].item() or depth)
    if variant == "official":
        cells[(cells < RANGE[0]) | (cells >= RANGE[1])] = 0
    return cells


@pytest.mark.parametrize("variant", VARIANTS)
def test_labels_are_what_a_search_point_by_point_finds(variant: Literal["nearest", "official"]) -> None:
    points = torch.rand(2000, 3) * torch.tensor([60.0, 40.0, 80.0]) - torch.tensor([30.0, 20.0, 10.0])
    matrix = image_augmentation(resize=0.9, crop=(8, 15), size=IMAGE, flip=True, rotate_deg=5.0)
    assert_close(labels(points, variant, matrix), brute_force(points, variant, matrix))


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_points_there_is_no_label(variant: Literal["nearest", "official"]) -> None:
    assert not labels(torch.empty(0, 3), variant).any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_points_behind_and_in_the_camera_plane_make_no_label(variant: Literal["nearest", "official"]) -> None:
    assert not labels(torch.tensor([[0.0, 0, -5], [0, 0, 0], [1, 1, 0]]), variant).any()


def test_the_order_of_points_matters_to_the_official_pixels_only() -> None:
    points = torch.tensor([[0.0, 0, 10], [0, 0, 20]])
    for order, first in itertools.product(([0, 1], [1, 0]), (10.0,)):
        assert labels(points[order], "nearest")[round(45 / 8), 10] == first
    assert labels(points, "official")[45 // 8, 10] == 20
    assert labels(points.flip(0), "official")[45 // 8, 10] == 10


def test_an_official_cell_whose_nearest_point_is_too_close_stays_empty() -> None:
    points = torch.tensor([[0.0, 0, 0.5], [0.2, 0, 10]])  # two pixels of one cell
    assert labels(points, "official")[45 // 8, 10] == 0
    assert labels(points, "nearest")[round(45 / 8), 10] == 10


def test_a_point_wins_its_pixel_by_its_place_in_the_file() -> None:
    depth = torch.tensor([3.0, 1.0, 2.0])
    pixels = torch.stack([torch.full((3,), 4.2), torch.full((3,), 5.9), depth], dim=1)[None]
    drawn = last_in_pixels(pixels, torch.ones(1, 3, dtype=torch.bool), (16, 16))
    assert drawn[0, 5, 4] == 2.0
    assert drawn.count_nonzero() == 1


@pytest.mark.nuscenes
def test_real_sweeps_label_most_cells_below_the_horizon(nuscenes_index: NuscenesIndex) -> None:
    rows = nuscenes_index.sample_cameras[0]
    lidar = int(nuscenes_index.sample_lidar[0])
    camera_from_global = np.linalg.inv(nuscenes_index.global_from_sensor(rows))
    label = depth_labels(
        read_points(nuscenes_index.path(lidar))[:, :3],
        torch.from_numpy(camera_from_global @ nuscenes_index.global_from_sensor(lidar)),
        torch.from_numpy(nuscenes_index.intrinsics(rows)),
        image_augmentation(resize=0.44, crop=(0, 140), size=(256, 704), flip=False, rotate_deg=0).expand(6, 4, 4),
        stored_size=(900, 1600),
        image_size=(256, 704),
        stride=16,
        depth_range=(1.0, 60.0),
        variant="nearest",
    )
    # Rows run from above the horizon to the road before the car: depth must fall on the way down.
    upper, lower = label[1, 6:9], label[1, 12:15]
    assert upper[upper > 0].mean() > 2 * lower[lower > 0].mean()
    assert (label[:, 5:14] > 0).float().mean() > 0.9
