"""Sparse convolutions: what dense ones say, where something is."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from dualdistill.ops.sparse_conv import Sites, SparseTensor, strided_shape
from dualdistill.ops.sparse_spconv import SpconvTensor

SHAPE = (8, 16, 16)


def scattered(share: float = 0.1, channels: int = 5, seed: int = 0) -> SparseTensor:
    random = torch.Generator().manual_seed(seed)
    cells = (torch.rand(2, *SHAPE, generator=random) < share).nonzero()
    return SparseTensor(torch.randn(len(cells), channels, generator=random), Sites(cells, SHAPE, 2))


def kernel(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mask(x: SparseTensor) -> Tensor:
    return x.with_features(torch.ones(len(x.sites), 1)).dense()


def test_dense_is_where_the_cells_say():
    cells = torch.tensor([[0, 7, 1, 2], [1, 0, 15, 3]])
    dense = SparseTensor(torch.tensor([[1.0], [2.0]]), Sites(cells, SHAPE, 2)).dense()
    assert dense.shape == (2, 1, *SHAPE)
    assert dense[0, 0, 7, 1, 2] == 1
    assert dense[1, 0, 0, 15, 3] == 2
    assert dense.sum() == 3


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 1.0], ids=["nothing", "hardly anything", "some", "everything"])
def test_submanifold_is_the_dense_convolution_where_something_was(share):
    x, weight = scattered(share), kernel(6, 3, 3, 3, 5)
    found = x.submanifold(weight)
    assert torch.equal(found.sites.cells, x.sites.cells)
    dense = F.conv3d(x.dense(), weight.permute(0, 4, 1, 2, 3), padding=1)
    assert_close(found.dense(), dense * mask(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 1.0], ids=["nothing", "hardly anything", "some", "everything"])
@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [
        ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
        ((3, 3, 3), (2, 2, 2), (0, 1, 1)),
        ((3, 1, 1), (2, 1, 1), (0, 0, 0)),
    ],
)
def test_strided_is_the_dense_convolution_where_its_window_meets_something(share, size, stride, padding):
    x, weight = scattered(share), kernel(6, *size, 5)
    found = x.strided(weight, stride, padding)
    dense = F.conv3d(x.dense(), weight.permute(0, 4, 1, 2, 3), stride=stride, padding=padding)
    met = F.conv3d(mask(x), torch.ones(1, 1, *size), stride=stride, padding=padding) > 0
    assert found.sites.shape == tuple(dense.shape[2:])
    assert torch.equal(mask(found).bool(), met)
    assert_close(found.dense(), dense * met, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("z", "padding", "answers"),
    [(7, (1, 1, 1), [3, 4]), (7, (0, 1, 1), [3]), (8, (0, 1, 1), [3, 4])],
)
def test_one_voxel_reaches_the_documented_cells(z, padding, answers):
    x = SparseTensor(torch.ones(1, 1), Sites(torch.tensor([[0, z, 100, 200]]), (41, 256, 256), 1))
    found = x.strided(torch.ones(1, 3, 3, 3, 1), (2, 2, 2), padding).sites.cells
    assert found.tolist() == [[0, level, 50, 100] for level in answers]


def test_heights_halve_as_published():
    shape = (41, 1024, 1024)
    for padding, expected in [((1, 1, 1), 21), ((1, 1, 1), 11), ((0, 1, 1), 5)]:
        shape = strided_shape(shape, (3, 3, 3), (2, 2, 2), padding)
        assert shape[0] == expected
    assert strided_shape(shape, (3, 1, 1), (2, 1, 1), (0, 0, 0)) == (2, 128, 128)


def test_gradients_are_those_of_small_changes():
    cells = (torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(3)) < 0.3).nonzero()
    sites = Sites(cells, (3, 4, 4), 1)

    def network(features: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return SparseTensor(features, sites).submanifold(first).strided(second, (2, 2, 2), (1, 1, 1)).features

    inputs = (kernel(len(cells), 2), kernel(2, 3, 3, 3, 2), kernel(3, 3, 3, 3, 2, seed=2))
    inputs = tuple(each.double().requires_grad_() for each in inputs)
    torch.autograd.gradcheck(network, inputs)


def answer_and_gradients(kind: Callable[[Tensor, Sites], SparseTensor | SpconvTensor]) -> list[Tensor]:
    start = scattered()
    weights = [kernel(6, 3, 3, 3, 5), kernel(6, 3, 3, 3, 6), kernel(7, 3, 3, 3, 6), kernel(7, 3, 1, 1, 7)]
    inputs = [start.features.requires_grad_(), *(weight.requires_grad_() for weight in weights)]
    x = kind(start.features, start.sites).submanifold(weights[0])
    x = x.with_features(x.features.relu()).submanifold(weights[1]).strided(weights[2], (2, 2, 2), (1, 1, 1))
    dense = x.with_features(x.features.relu()).strided(weights[3], (2, 1, 1), (0, 0, 0)).dense()
    dense.square().mean().backward()
    return [dense.detach(), *(each.grad for each in inputs)]


def test_spconv_says_the_same_and_so_do_its_gradients():
    pytest.importorskip("spconv")
    for theirs, ours in zip(answer_and_gradients(SpconvTensor.of), answer_and_gradients(SparseTensor), strict=True):
        assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_spconv_says_the_same_whatever_threads_there_are():
    """Left to several threads, its sums are wrong now and then."""
    pytest.importorskip("spconv")
    expected, before = answer_and_gradients(SparseTensor), torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for _ in range(20):
            for theirs, ours in zip(answer_and_gradients(SpconvTensor.of), expected, strict=True):
                assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
