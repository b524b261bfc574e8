import copy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dualdistill.geometry.grid import BevGrid
from dualdistill.models.pillars import PillarEncoder, pool_split
from dualdistill.ops.voxelize import dynamic_voxelize
from dualdistill.structures import Points

GRID, Z_RANGE = BevGrid.around(12.8, 0.4), (-5.0, 3.0)


def make_encoder(channels: int = 16, point_channels: int = 5) -> PillarEncoder:
    """With scales of either sign."""
    encoder = PillarEncoder(point_channels, (channels,), GRID, Z_RANGE)
    norm = encoder.layers[0].norm
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return encoder


def make_points(kind: str, channels: int = 5) -> Points:
    count = {"two points": 2}.get(kind, 501)
    features = torch.randn(count, channels) * 6
    features[:, 2] = features[:, 2].clamp(-4, 2)
    if kind in ("one cell", "two points"):
        features[:, :2] = 3.1 + 0.1 * torch.rand(count, 2)
    if kind == "every point twice":
        features = features.repeat(2, 1)
    return Points(features=features, sample=torch.arange(len(features)) * 2 // len(features))


def pool_plainly(encoder: PillarEncoder, points: Points) -> Tensor:
    """The definition, in float64: in float32 its own rounding is larger than what separates the two."""
    raw = points.features.double()
    pillars = dynamic_voxelize(points.features[:, :3], points.sample, GRID, Z_RANGE, 2)
    return encoder.pool(encoder.describe(raw.index_select(0, pillars.kept), pillars), pillars)


def pool_fast(encoder: PillarEncoder, points: Points) -> Tensor:
    pillars = dynamic_voxelize(points.features[:, :3], points.sample, GRID, Z_RANGE, 2)
    layer = encoder.layers[0]
    return pool_split(points.features, pillars, GRID, layer.linear, layer.norm)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("channels", [3, 5, 17])
@pytest.mark.parametrize("kind", ["scattered", "one cell", "two points", "every point twice"])
def test_split_pooling_is_the_point_network_with_gradients_and_statistics(kind, channels, training):
    points = make_points(kind, channels)
    fast = make_encoder(point_channels=channels).train(training)
    plain = copy.deepcopy(fast).double()
    pooled, expected = pool_fast(fast, points), pool_plainly(plain, points)
    close = {"rtol": 1e-4, "atol": 1e-4, "check_dtype": False}
    assert_close(pooled, expected, **close)
    upstream = torch.randn(pooled.shape)
    pooled.backward(upstream)
    expected.backward(upstream.double())
    for (name, ours), theirs in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        size = theirs.grad.abs().max()
        assert_close(ours.grad / size, theirs.grad / size, **close)
    assert_close(dict(fast.named_buffers()), dict(plain.named_buffers()), **close)


def test_far_from_the_origin_it_is_as_exact_as_near():
    grid = BevGrid.around(1024.0, 0.5)
    encoder = PillarEncoder(5, (8,), grid, Z_RANGE).eval()
    points = torch.rand(200, 5) + torch.tensor([1000.0, -1000, 0, 0, 0])
    pillars = dynamic_voxelize(points[:, :3], torch.zeros(200).long(), grid, Z_RANGE, 2)
    layer = encoder.layers[0]
    pooled = pool_split(points, pillars, grid, layer.linear, layer.norm)
    exact = copy.deepcopy(encoder).double()
    expected = exact.pool(exact.describe(points[pillars.kept].double(), pillars), pillars)
    assert_close(pooled.double(), expected, rtol=1e-5, atol=1e-4)


def test_who_wants_gradients_of_points_gets_them():
    features = make_points("scattered").features.requires_grad_()
    points = Points(features=features, sample=torch.zeros(len(features), dtype=torch.long))
    make_encoder()(points, 1).sum().backward()
    assert features.grad is not None
    assert features.grad.any()


def test_a_norm_that_asks_other_processes_is_left_to_itself():
    class Counting(nn.BatchNorm1d):
        calls = 0

        def forward(self, input: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(input)

    encoder = make_encoder()
    encoder.layers[0].norm = norm = Counting(16)
    encoder(make_points("scattered"), 2)
    assert norm.calls == 1


def test_a_scale_of_zero_leaves_the_norms_shift():
    encoder = make_encoder()
    with torch.no_grad():
        encoder.layers[0].norm.weight.zero_()
    pooled = pool_fast(encoder, make_points("scattered"))
    assert_close(pooled, encoder.layers[0].norm.bias.relu().expand_as(pooled))
