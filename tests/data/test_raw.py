"""What a GPU computes of a sample is what a loader process would compute."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dualdistill.data.collate import OUTSIDE, collate, pack
from dualdistill.data.config import DataConfig
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.sweeps import accumulate, choose_sweeps
from dualdistill.geometry.transforms import invert_rigid, transform
from dualdistill.structures import Batch
from tests.data.test_dataset import SMALL, assert_same
from tests.gpu.pretend import DEVICE, watching

KEYS = [(1, 4), (1, 0), (1, 5)]
"""Scenes' first samples have fewer sweeps than others."""


def data(index: NuscenesIndex, config: DataConfig = SMALL) -> NuscenesDataset:
    return NuscenesDataset(index, config, np.arange(len(index)), training=True, seed=0)


def on_device(samples: list) -> Batch:
    """A batch finished on the pretended GPU, without a wait and without meeting a CPU tensor, on the CPU again."""
    with watching() as watch:
        batch = pack(samples).to(DEVICE, non_blocking=True)
        assert not watch.waits, watch.report()
        assert not watch.mixings, watch.report()
        assert watch.launches.total() <= 130, watch.report()
    return batch.to("cpu")


@pytest.mark.parametrize("variant", ["nearest", "official"])
def test_on_the_device_a_batch_is_what_it_is_in_the_loader(tiny_index: NuscenesIndex, variant: str) -> None:
    samples = data(tiny_index, replace(SMALL, depth_variant=variant)).__getitems__(KEYS)
    here, there = collate(samples), on_device(samples)
    inside = there.points.features[:, 0] < OUTSIDE
    assert not inside.all()
    points = replace(there.points, features=there.points.features[inside], sample=there.points.sample[inside])
    assert_close(points.features, here.points.features, atol=1e-5, rtol=1e-5)
    assert_close(there.depth, here.depth, atol=1e-5, rtol=1e-5)
    assert here.depth.count_nonzero() > 50
    assert_same(replace(there, points=here.points, depth=here.depth), replace(here))
    assert torch.equal(points.sample, here.points.sample)


def test_a_loader_passes_on_what_makes_the_samples(tiny_index: NuscenesIndex) -> None:
    samples = data(tiny_index)
    assert_same(collate(samples.__getitems__(KEYS)), collate([samples[key] for key in KEYS]))


def test_points_are_the_accumulated_sweeps_moved_and_cut(tiny_index: NuscenesIndex) -> None:
    samples = data(tiny_index, replace(SMALL, random_sweeps=False))
    sample = samples[1, 5]
    key = int(tiny_index.sample_lidar[5])
    expected = accumulate(tiny_index, key, choose_sweeps(tiny_index, key, SMALL.num_sweeps))
    bev_from_key = invert_rigid(sample.meta[0].global_from_bev) @ torch.from_numpy(tiny_index.global_from_sensor(key))
    expected[:, :3] = transform(sample.augmented_from_bev[0] @ bev_from_key.float(), expected[:, :3])
    low, high = torch.tensor(SMALL.point_range).view(2, 3)
    expected = expected[((expected[:, :3] > low) & (expected[:, :3] < high)).all(dim=1)]
    assert sample.points is not None
    assert_close(sample.points.features, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.nuscenes
def test_on_the_device_real_samples_are_what_they_are_in_the_loader(nuscenes_root: Path) -> None:
    index = NuscenesIndex.open(nuscenes_root)
    samples = data(index, DataConfig()).__getitems__([(0, len(index) - 1), (0, 0)])
    here, there = collate(samples), on_device(samples)
    inside = there.points.features[:, 0] < OUTSIDE
    # A point within rounding of the range's bound, or of half a cell, may fall on either side of it.
    assert abs(int(inside.sum()) - len(here.points.features)) <= 2
    assert ((there.depth - here.depth).abs() > 1e-4).float().mean() < 1e-4
    assert_same(replace(there, points=None, depth=None), replace(here, points=None, depth=None))
