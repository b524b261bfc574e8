"""Whose the depth labels are: laws of `Batch.depth_instance` (docs/methods/tig_bev.md#depth-labels)."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.data.collate import collate
from dualdistill.data.config import DataConfig, ImageAugmentation
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.depth import depth_labels, owners_of_labels, owners_of_points
from dualdistill.data.index import NuscenesIndex
from dualdistill.geometry.cameras import image_augmentation
from dualdistill.geometry.transforms import transform
from dualdistill.structures import Batch, Boxes
from tests.data.tiny_root import TinyRoot

INTRINSICS = torch.tensor([[100.0, 0, 80], [0, 100, 45], [0, 0, 1]])
STORED, IMAGE, STRIDE = (90, 160), (64, 128), 8
VARIANTS: tuple[Literal["nearest", "official"], ...] = ("nearest", "official")
SMALL = DataConfig(
    image_size=(32, 80), depth_stride=8, depth_instance=True, image_augmentation=ImageAugmentation(scale=(-0.1, 0.1))
)


def labels_and_owners(points: Tensor, owner: Tensor, variant: Literal["nearest", "official"]) -> tuple[Tensor, Tensor]:
    matrix = image_augmentation(resize=0.9, crop=(8, 15), size=IMAGE, flip=True, rotate_deg=5.0)
    cameras = (torch.eye(4)[None], INTRINSICS[None], matrix[None])
    labels = depth_labels(
        points, *cameras, stored_size=STORED, image_size=IMAGE, stride=STRIDE, depth_range=(1.0, 60.0), variant=variant
    )
    return labels[0], owners_of_labels(labels, points, owner, *cameras, stride=STRIDE, variant=variant)[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_label_belongs_to_the_point_of_its_depth(variant: Literal["nearest", "official"]) -> None:
    points = torch.rand(2000, 3) * torch.tensor([60.0, 40.0, 80.0]) - torch.tensor([30.0, 20.0, 10.0])
    labels, owners = labels_and_owners(points, torch.arange(2000), variant)
    made = labels > 0
    assert made.sum() > 50
    assert_close(points[owners[made], 2], labels[made])
    assert (owners[~made] == -1).all()
    if variant == "nearest":  # of several points in a cell, the owner of a farther one has no say
        _, object_owners = labels_and_owners(points, torch.where(points[:, 2] > 30, 7, -1), variant)
        assert torch.equal(object_owners == 7, labels > 30)


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_points_nobody_owns_anything(variant: Literal["nearest", "official"]) -> None:
    _, owners = labels_and_owners(torch.empty(0, 3), torch.empty(0, dtype=torch.long), variant)
    assert (owners == -1).all()


def test_the_last_box_owns_a_point_in_several_and_none_owns_the_others() -> None:
    boxes = Boxes(
        center=torch.tensor([[0.0, 0, 0], [1, 0, 0], [50, 0, 0]]),
        size=torch.full((3, 3), 2.0),
        yaw=torch.zeros(3),
        velocity=torch.zeros(3, 2),
        label=torch.zeros(3, dtype=torch.long),
    )
    points = torch.tensor([[-0.5, 0, 0], [0.5, 0, 0], [1.5, 0, 0], [0.5, 0, 1.5], [50, 0, 0]])
    assert owners_of_points(points, boxes).tolist() == [0, 1, 1, -1, 2]
    assert owners_of_points(points, Boxes.empty()).tolist() == [-1] * 5
    assert owners_of_points(points[:0], boxes).shape == (0,)


def dataset(index: NuscenesIndex, config: DataConfig, training: bool = True) -> NuscenesDataset:
    return NuscenesDataset(index, config, np.arange(len(index)), training=training, seed=0)


def backprojected(batch: Batch, stride: int) -> Tensor:
    """Points (augmented BEV frame, float64) of the cells that an object owns: cell by its pixel, at its depth."""
    assert batch.cameras is not None
    assert batch.depth is not None
    assert batch.depth_instance is not None
    _, cam, row, column = torch.where(batch.depth_instance >= 0)
    depth = batch.depth[batch.depth_instance >= 0].double()
    augmented = torch.stack([stride * column.double(), stride * row.double(), depth], dim=1)[:, None]
    cameras = batch.cameras
    image = transform(torch.linalg.inv(cameras.augmented_from_image[0, 0, cam].double()), augmented)
    rays = (
        torch.cat([image[..., :2], torch.ones_like(image[..., :1])], dim=2)
        @ torch.linalg.inv(cameras.intrinsics[0, 0, cam].double()).mT
    )
    return transform(cameras.bev_from_camera[0, 0, cam].double(), rays * depth[:, None, None])[:, 0]


def test_asking_whose_the_labels_are_changes_nothing_else(tiny_index: NuscenesIndex) -> None:
    asked, plain = dataset(tiny_index, SMALL)[0, 5], dataset(tiny_index, replace(SMALL, depth_instance=False))[0, 5]
    assert plain.depth_instance is None
    assert asked.depth is not None
    assert asked.depth_instance is not None
    assert asked.depth_instance.shape == asked.depth.shape
    assert torch.equal(asked.depth, plain.depth)
    batch = collate([asked, asked])
    assert batch.depth_instance is not None
    assert torch.equal(batch.depth_instance[1], asked.depth_instance[0])
    with pytest.raises(ValueError, match="1 of 2 samples have depth_instance"):
        collate([asked, plain])


def test_a_box_around_everything_owns_every_label_and_one_around_nothing_none(own_root: TinyRoot) -> None:
    own_root.rewrite("sample_annotation", lambda records: [record.update(size=[400, 400, 90]) for record in records])
    everything = dataset(NuscenesIndex.open(own_root.path), SMALL)[3, 1]
    assert everything.depth is not None
    assert everything.depth_instance is not None
    assert everything.depth.count_nonzero() > 20
    assert torch.equal(everything.depth_instance >= 0, everything.depth > 0)
    own_root.rewrite("sample_annotation", lambda records: records.clear())
    nothing = dataset(NuscenesIndex.open(own_root.path), SMALL)[3, 1]
    assert nothing.depth_instance is not None
    assert (nothing.depth_instance == -1).all()


def test_owners_without_labels_are_refused() -> None:
    for lacking in ({"depth": False}, {"cameras": False}):
        with pytest.raises(ValueError, match="depth_instance has no effect without depth labels"):
            replace(SMALL, **lacking)  # type: ignore[arg-type]


@pytest.mark.nuscenes
@pytest.mark.parametrize("epoch", [0, 1])
def test_real_cells_that_show_an_object_lie_in_its_box_under_any_augmentation(
    nuscenes_index: NuscenesIndex, epoch: int
) -> None:
    batch = dataset(nuscenes_index, DataConfig(depth_instance=True, num_sweeps=1, box_reach=200.0))[epoch, 3]
    assert batch.depth_instance is not None
    assert not torch.equal(batch.augmented_from_bev[0], torch.eye(4))
    points, boxes = backprojected(batch, 16), batch.boxes[0]
    owner = batch.depth_instance[batch.depth_instance >= 0]
    assert len(owner) > 20
    cos, sin = boxes.yaw.double()[owner].cos(), boxes.yaw.double()[owner].sin()
    dx, dy, dz = (points - boxes.center.double()[owner]).unbind(dim=1)
    away = torch.stack([dx * cos + dy * sin, dy * cos - dx * sin, dz], dim=1).abs() - boxes.size[owner] / 2
    # A point lies up to half a cell beside the pixel of its cell: 1.4 % of its distance.
    distance = points[:, :2].norm(dim=1)
    assert (away.amax(dim=1) < 0.1 + 0.025 * distance).all()
