"""Depth labels against official BEVDepth (golden/bevdepth/depth_maps.json says how they were made).

The worked examples are those of docs/methods/bevdepth.md#worked-values.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.data.depth import depth_labels, last_in_pixels, nearest_in_cells, smallest_in_blocks
from dualdistill.geometry.cameras import image_augmentation, project
from dualdistill.geometry.transforms import transform

GOLDEN = Path(__file__).parent / "golden" / "bevdepth" / "depth_maps.npz"
STORED, FINAL, STRIDE = (900, 1600), (64, 176), 16
DEPTH_RANGE, BIN = (2.0, 58.0), 4.0


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def camera_from_lidar(golden: dict[str, Tensor]) -> Tensor:
    global_from_lidar = golden["ego2global_lidar"] @ golden["lidar2ego"]
    return torch.linalg.inv(golden["ego2global_cam"] @ golden["cam2ego"]) @ global_from_lidar


def augmentations(golden: dict[str, Tensor]) -> Tensor:
    return torch.stack(
        [
            image_augmentation(resize=row[0], crop=(row[3], row[4]), size=FINAL, flip=bool(row[7]), rotate_deg=row[8])
            for row in golden["ida_params"].tolist()
        ]
    )


def bins(labels: Tensor) -> Tensor:
    """Depth bin of each cell, -1 where there is no label."""
    return torch.where(labels > 0, (labels - DEPTH_RANGE[0]).div(BIN).floor(), -1).to(torch.int32)


def test_the_official_chain_gives_the_official_bins(golden: dict[str, Tensor]) -> None:
    labels = depth_labels(
        golden["points"][:, :3],
        camera_from_lidar(golden),
        golden["intrin"],
        augmentations(golden),
        stored_size=STORED,
        image_size=FINAL,
        stride=STRIDE,
        depth_range=DEPTH_RANGE,
        variant="official",
    )
    same = bins(labels) == golden["label"]
    assert (golden["label"] >= 0).sum() == 251
    assert same.float().mean() >= 0.99  # a coordinate within 1e-3 of an integer may fall on either side
    assert same[golden["label"] >= 0].sum() >= 249


def test_the_last_point_of_a_pixel_wins_as_officially(golden: dict[str, Tensor]) -> None:
    points = golden["points"][:, :3].double().expand(6, -1, -1)
    pixels = project(transform(camera_from_lidar(golden), points), golden["intrin"])
    u, v, depth = pixels.unbind(dim=-1)
    seen = (depth > 0) & (u > 1) & (u < 1599) & (v > 1) & (v < 899)
    augmented = transform(augmentations(golden).double(), pixels)
    drawn = last_in_pixels(augmented, seen, FINAL)
    assert_close(drawn[golden["depth_maps"] > 0].count_nonzero(), (golden["depth_maps"] > 0).sum(), atol=4, rtol=0)
    agree = (drawn - golden["depth_maps"]).abs() < 1e-3
    assert (~agree).sum() <= 8


def test_the_worked_examples_of_the_official_blocks() -> None:
    depth = torch.zeros(1, 32, 48)
    for (row, column), values in {
        (0, 0): (10.3, 7.9),
        (0, 1): (1.7,),
        (0, 2): (57.9,),
        (1, 0): (58.0,),
        (1, 1): (2.0, 40.0),
        (1, 2): (1.2, 30.0),
    }.items():
        for i, value in enumerate(values):
            depth[0, 16 * row + 3 * i, 16 * column + 5] = value
    expected = torch.tensor([[[7.9, 1.7, 57.9], [58.0, 2.0, 1.2]]])
    assert_close(smallest_in_blocks(depth, 16), expected)


def test_the_worked_examples_of_the_nearest_point() -> None:
    points = [
        *((352, 80, 20), (353, 81, 19), (4.4, 247.2, 5), (3, 3, 12), (7.9, 7.9, 30), (8.1, 8.1, 31)),
        *((24, 24, 7), (100, 100, 60), (100, 100, 59.9), (703, 255, 9), (695, 247, 8)),
    ]
    pixels = torch.tensor([points])
    label = nearest_in_cells(pixels, torch.ones(1, len(points), dtype=torch.bool), (256, 704), 16, (1.0, 60.0))
    expected = torch.zeros(1, 16, 44)
    for row, column, depth in (
        *((5, 22, 19), (15, 0, 5), (0, 0, 12), (1, 1, 31), (2, 2, 7), (6, 6, 59.9), (15, 43, 8)),
    ):
        expected[0, row, column] = depth
    assert_close(label, expected)
