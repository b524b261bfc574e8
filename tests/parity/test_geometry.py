"""Frustum and pooling cells against official BEVDepth (golden/bevdepth/geometry_full.json).

The worked examples are those of docs/methods/bevdepth.md#worked-values.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.geometry.cameras import bev_augmentation, frustum, image_augmentation, lift
from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.bev_pool import make_pool_plan, pool_cells

GOLDEN = Path(__file__).parent / "golden" / "bevdepth" / "geometry_full.npz"
FINAL, FEATURES = (256, 704), (16, 44)
DEPTHS = torch.arange(2.0, 58.0, 0.5)
GRID, Z_RANGE = BevGrid.around(51.2, 0.8), (-5.0, 3.0)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def points(golden) -> Tensor:
    """Frustum points in the augmented ego frame, batch cam depth h w 3."""
    bev_from_camera = golden["bda"][:, None] @ golden["sensor2ego"]
    rays = frustum(FINAL, FEATURES, DEPTHS)
    return lift(rays, golden["intrin"][..., :3, :3].contiguous(), golden["ida"], bev_from_camera)


def test_the_corners_of_the_frustum_are_the_official_ones(golden):
    rays = frustum(FINAL, FEATURES, DEPTHS)
    ends = torch.stack([rays[0, 0, 0], rays[0, -1, -1], rays[-1, 0, 0], rays[-1, -1, -1]])
    assert_close(ends, golden["frustum_corner"][:, :3])


def test_lifted_points_are_the_official_ones(golden, points):
    assert_close(points[tuple(golden["index"].long().T)], golden["points"], atol=2e-3, rtol=0)


def test_truncated_cells_are_the_official_ones(golden, points):
    index, (x, y, z) = golden["index"].long(), golden["voxel"].long().T
    cells = pool_cells(points, GRID, Z_RANGE, "truncate")[tuple(index.T)]
    at_home = (x >= 0) & (x < GRID.width) & (y >= 0) & (y < GRID.height) & (z == 0)
    scaled = (golden["points"] - torch.tensor([-51.2, -51.2, -5])) / torch.tensor([0.8, 0.8, 8])
    clear = ((scaled - scaled.round()).abs() > 1e-3).all(dim=1)
    assert clear.sum() > 2900
    official = (index[:, 0] * GRID.height + y) * GRID.width + x
    assert torch.equal(cells[clear].long(), torch.where(at_home, official, -1)[clear])


def test_truncation_lets_in_as_many_points_as_the_official_code_and_floor_fewer(golden, points):
    for sample, official in enumerate(golden["valid_count"].tolist()):
        one = points[sample : sample + 1]
        kept = {how: len(make_pool_plan(one, GRID, Z_RANGE, how).point_by_cell) for how in ("truncate", "floor")}
        assert kept["truncate"] == pytest.approx(official, abs=5)  # a few points lie within rounding of a border
        assert kept["floor"] < official - 1000


FRONT_CAMERA = torch.tensor([[1266.4, 0, 816.3], [0, 1266.4, 491.5], [0, 0, 1]])
EGO_FROM_CAMERA = torch.tensor([[0.0, 0, 1, 1.7], [-1, 0, 0, 0.016], [0, -1, 0, 1.51], [0, 0, 0, 1]])
TEST_TIME = image_augmentation(resize=0.44, crop=(0, 140), size=FINAL, flip=False, rotate_deg=0.0)
TRAINING = image_augmentation(resize=0.5, crop=(37, 194), size=FINAL, flip=True, rotate_deg=5.4)
TURNED = bev_augmentation(angle=math.radians(22.5), scale=1.05, flip_x=True, flip_y=False)


@pytest.mark.parametrize(
    ("image", "bev", "worked"),
    [
        (
            TEST_TIME,
            torch.eye(4),
            {
                (0, 0, 0): ((3.7, 1.305166, 1.783718), (68, 65)),
                (16, 8, 22): ((11.7, 0.006983, 0.437885), (78, 64)),
                (111, 15, 43): ((59.2, -35.464153, -16.934462), (-1, -1)),
            },
        ),
        (
            TRAINING,
            TURNED,
            {
                (0, 0, 0): ((-3.988014, 0.524078, 1.865107), (59, 64)),
                (16, 8, 22): ((-11.178201, 5.115686, 0.177042), (50, 70)),
                (111, 15, 43): ((-44.408646, 55.219948, -20.890013), (-1, -1)),
            },
        ),
    ],
)
def test_the_worked_points_and_their_cells(image, bev, worked):
    points = lift(frustum(FINAL, FEATURES, DEPTHS), FRONT_CAMERA, image, bev @ EGO_FROM_CAMERA)
    cells = pool_cells(points[None, None], GRID, Z_RANGE, "truncate")[0, 0]
    for index, (xyz, (x, y)) in worked.items():
        assert_close(points[index], torch.tensor(xyz), atol=1e-4, rtol=0)
        assert cells[index] == (y * GRID.width + x if y >= 0 else -1)
