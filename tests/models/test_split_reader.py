"""The original MVP's reader on voxels one can work out by hand (docs/methods/mvp.md#worked-values)."""

import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.models.split_reader import split_means


def raw(x: float, y: float, z: float, intensity: float, lag: float) -> list[float]:
    return [x, y, z, intensity, *[1.0] * 10, 1.0, lag]


def labelled(x: float, y: float, z: float, klass: int, score: float, flag: float, lag: float) -> list[float]:
    return [x, y, z, *[float(i == klass) for i in range(10)], score, flag, lag]


def read(*points: list[float]) -> Tensor:
    """Features of the one voxel that holds all points."""
    return split_means(torch.tensor(points), torch.zeros(len(points), dtype=torch.long), 1)[0]


def test_raw_and_virtual_points_are_averaged_apart() -> None:
    virtual = labelled(1, 2, 3, 4, 0.5, -1, 0.1)
    features = read(raw(1, 2, 3, 7, 0.1), virtual, virtual, virtual)
    classes = [float(i == 4) for i in range(10)]
    assert_close(features, torch.tensor([1, 2, 3, 7, 0.1, 1, 2, 3, *classes, 0.5, 0.1, 0.0]))


def test_the_last_channel_is_the_share_of_painted_among_labelled_points() -> None:
    kinds = [labelled(1, 2, 3, 4, 0.5, flag, 0.1) for flag in (-1, -1, 0)]
    assert_close(read(raw(1, 2, 3, 7, 0.1), *kinds)[20], torch.tensor(1 / 3))
    assert_close(read(*kinds)[20], torch.tensor(1 / 3))


def test_a_kind_a_voxel_has_none_of_is_zero() -> None:
    assert_close(read(raw(1, 2, 3, 7, 0.1), raw(3, 2, 3, 9, 0.3)), torch.tensor([2, 2, 3, 8, 0.2, *[0.0] * 16]))
    assert not read(labelled(1, 2, 3, 4, 0.5, -1, 0.1))[:5].any()


def test_voxels_do_not_mix() -> None:
    points = torch.tensor([raw(1, 2, 3, 7, 0), labelled(4, 5, 6, 0, 0.5, -1, 0), raw(3, 2, 3, 9, 0)])
    features = split_means(points, torch.tensor([0, 2, 0]), 4)
    assert_close(features[:, 0], torch.tensor([2.0, 0, 0, 0]))
    assert_close(features[:, 5], torch.tensor([0.0, 0, 4, 0]))
