"""Pillar features: from LiDAR points, sorted into tall cells, to a BEV map.

Source: PointPillars (Lang et al., CVPR 2019) with dynamic voxelisation; docs/methods/centerpoint.md#pillar-features
(dynamic; hard where `max_points` is given). No cap on pillars. Differs from the released code in that
points outside the range are dropped first; there they belong to no pillar either, but take part in the batch norm's
training statistics.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.blocks import normed
from dualdistill.ops.integers import group_sizes, stable_order
from dualdistill.ops.voxelize import Pillars, dynamic_voxelize, linear_max, scatter_max, scatter_mean
from dualdistill.structures import Points


class PointLayer(nn.Module):
    """Linear, batch norm over points, ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.norm = nn.BatchNorm1d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, features: Float[Tensor, "points _"]) -> Float[Tensor, "points chan"]:
        return normed(self.norm, self.linear(features)).relu()


class PillarEncoder(nn.Module):
    """Points to a canvas: each pillar's feature is the maximum over its points of a small point network.

    With more than one layer, the pillar's maximum joins each of its points before the next layer.
    """

    def __init__(
        self,
        point_channels: int,
        channels: Sequence[int],
        grid: BevGrid,
        z_range: tuple[float, float],
        *,
        max_points: int | None = None,
        height_column: bool = False,
    ):
        """
        Args:
            point_channels: Of `Points.features`, x, y, z first.
            channels: Width of each layer; the last is the canvas'.
            grid: The pillars.
            z_range: Heights a point may have, metres, half open.
            max_points: Of a pillar: those beyond, in the order of the points, are left out, and empty rows fill up
                what is missing (docs/methods/centerpoint.md#pillar-features, hard). None: pillars as they are.
            height_column: Whether points are described by their height above the middle of the pillar too.
        """
        super().__init__()
        self.grid = grid
        self.z_range = z_range
        self.max_points = max_points
        self.height_column = height_column
        widths = (point_channels + 5 + height_column, *(2 * width for width in channels[:-1]))
        self.layers = nn.ModuleList(map(PointLayer, widths, channels))

    def forward(self, points: Points, batch_size: int) -> Float[Tensor, "batch chan y x"]:
        """The canvas; zero where no point fell."""
        # Raw coordinates enter the first layer: bfloat16 would round 50 m to a quarter of a metre.
        with torch.autocast(points.features.device.type, enabled=False):
            raw = points.features.float()
            pillars = dynamic_voxelize(raw[:, :3], points.sample, self.grid, self.z_range, batch_size)
            if self.max_points is not None:
                pillars = capped(pillars, self.max_points)
            if self._splits(raw, pillars):
                (layer,) = self.layers
                assert isinstance(layer, PointLayer)
                features = pool_split(raw, pillars, self.grid, layer.linear, layer.norm)
            else:
                features = self.pool(self.describe(raw.index_select(0, pillars.kept), pillars), pillars)
        sample, y, x = pillars.cells.unbind(dim=1)
        height, width = self.grid.shape
        canvas = features.new_zeros(batch_size * height * width, features.shape[1])
        canvas = canvas.index_copy(0, (sample * height + y) * width + x, features)
        return canvas.view(batch_size, height, width, -1).permute(0, 3, 1, 2)  # channels last in memory

    def _splits(self, raw: Tensor, pillars: Pillars) -> bool:
        """True where `pool_split` computes the same as `pool`, faster and more exactly."""
        return (
            len(self.layers) == 1
            and self.max_points is None
            and not self.height_column
            and len(pillars.kept) > 1
            and not raw.requires_grad
            and type(self.layers[0].norm) is nn.BatchNorm1d  # not one synchronised over processes
        )

    def describe(self, raw: Float[Tensor, "points _"], pillars: Pillars) -> Float[Tensor, "points chan"]:
        """Columns of each point: those of `decorate`, and the height column if the config has it."""
        described = decorate(raw, pillars, self.grid)
        if not self.height_column:
            return described
        return torch.cat([described, raw[:, 2:3] - sum(self.z_range) / 2], dim=1)

    def pool(self, described: Float[Tensor, "points _"], pillars: Pillars) -> Float[Tensor, "pillars chan"]:
        """The point network, and its maximum over the points of each pillar, empty rows included."""
        empty = self._empty_rows(pillars)
        pillar = torch.cat([pillars.pillar, empty])
        first, *rest = self.layers
        hidden = first(torch.cat([described, described.new_zeros(len(empty), described.shape[1])]))
        pooled = scatter_max(hidden, pillar, len(pillars))
        for layer in rest:
            hidden = layer(torch.cat([hidden, pooled.index_select(0, pillar)], dim=1))
            pooled = scatter_max(hidden, pillar, len(pillars))
        return pooled

    def _empty_rows(self, pillars: Pillars) -> Int[Tensor, "rows"]:
        """Pillar of each empty row that fills one up."""
        if self.max_points is None:
            return pillars.pillar[:0]
        missing = self.max_points - group_sizes(pillars.pillar, len(pillars))
        total: int | None = self.max_points * len(pillars) - len(pillars.pillar)
        if not self.training:  # all empty rows of a pillar have the same features: one serves where none is counted
            missing, total = missing.clamp(max=1), None
        return torch.arange(len(pillars), device=missing.device).repeat_interleave(missing, output_size=total)


def capped(pillars: Pillars, max_points: int) -> Pillars:
    """Pillars with only the first `max_points` points of each, in the order of the points."""
    by_pillar = torch.argsort(pillars.pillar, stable=True)
    count = group_sizes(pillars.pillar, len(pillars))
    start = (count.cumsum(0) - count).index_select(0, pillars.pillar.index_select(0, by_pillar))
    rank = torch.empty_like(by_pillar)
    rank[by_pillar] = torch.arange(len(by_pillar), device=rank.device) - start
    early = (rank < max_points).nonzero().squeeze(1)
    return replace(pillars, kept=pillars.kept.index_select(0, early), pillar=pillars.pillar.index_select(0, early))


def decorate(raw: Float[Tensor, "points _"], pillars: Pillars, grid: BevGrid) -> Float[Tensor, "points chan"]:
    """Columns of each kept point: its own channels, its offset from the mean of its pillar's points (x, y, z), and from
    the middle of its pillar (x, y); metres."""
    xyz = raw[:, :3]
    mean = scatter_mean(xyz, pillars.pillar, len(pillars))
    reference = torch.cat([mean, pillars.centers(grid)], dim=1).index_select(0, pillars.pillar)
    return torch.cat([raw, torch.cat([xyz, xyz[:, :2]], dim=1) - reference], dim=1)


def pool_split(
    raw: Float[Tensor, "points _"], pillars: Pillars, grid: BevGrid, linear: nn.Linear, norm: nn.BatchNorm1d
) -> Float[Tensor, "pillars chan"]:
    """Output of `PillarEncoder.pool` with one layer, without features of single points; no gradient to the points.

    A point is described linearly by its own channels and by where its pillar's mean and middle are. So the layer splits
    into a part of the point (its channels, relative to the middle of its pillar) and a part of the pillar (five more),
    and the maximum over a pillar commutes with the latter, with the norm's shift and, with the norm's scale in the
    weights, with scales of either sign. In training, the statistics of the norm follow from means and covariances of
    the description.

    Coordinates relative to the pillar also keep digits that the definition loses: in float32, on 250,000 points, its
    result is a hundred times as far from that of float64. Where points tie, the definition shares the gradient between
    them, and this form gives it to the first: a difference only if a scale is exactly zero.

    Args:
        raw: All points, x, y, z first, metres; at least one of them in a pillar, in training at least two.
        linear: Takes the description of `decorate`, has no bias.
        norm: Over points; in training it normalises by their statistics and updates its running ones.
    """
    order = stable_order(pillars.pillar, len(pillars))
    size = group_sizes(pillars.pillar, len(pillars))
    start = size.cumsum(0) - size
    middle = pillars.centers(grid)
    point = raw.index_select(0, pillars.kept.index_select(0, order))
    point[:, :2] -= middle.repeat_interleave(size, dim=0, output_size=len(point))
    mean = torch.segment_reduce(point, "mean", lengths=size, axis=0, unsafe=True)
    pillar = torch.cat([mean[:, :3], middle], dim=1)

    # The description is (point, relative to the middle, and middle; point - mean; point - middle).
    channels = point.shape[1]
    own, to_mean, to_middle = linear.weight.split([channels, 3, 2], dim=1)
    of_point = own + F.pad(to_mean, (0, channels - 3)) + F.pad(to_middle, (0, channels - 2))
    of_pillar = torch.cat([-to_mean, own[:, :2]], dim=1)
    if norm.training:
        average, variance = _moments(point, mean, pillar, size, of_point, of_pillar)
        _keep(norm, average, variance, len(point))
    else:
        average, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight * (variance + norm.eps).rsqrt()
    shift = norm.bias - scale * average
    of_largest = linear_max(point, scale[:, None] * of_point, start)
    return (of_largest + F.linear(pillar, scale[:, None] * of_pillar, shift)).relu()


def _moments(
    point: Float[Tensor, "points _"],
    mean: Float[Tensor, "pillars _"],
    pillar: Float[Tensor, "pillars 5"],
    size: Tensor,
    of_point: Float[Tensor, "chan _"],
    of_pillar: Float[Tensor, "chan 5"],
) -> tuple[Float[Tensor, "chan"], Float[Tensor, "chan"]]:
    """Mean and (biased) variance over points of the linear function: of_point · point + of_pillar · pillar.

    Within a pillar only the point varies, between pillars the mean of it does too; float64, as these are sums over
    many points of coordinates of tens of metres.
    """
    share = (size / len(point)).double()[:, None]
    inner = (point - mean.repeat_interleave(size, dim=0, output_size=len(point))).double()
    within = inner.T @ inner / len(point)
    between = torch.cat([mean, pillar], dim=1).double()
    middle = (share * between).sum(dim=0)
    between = between - middle
    among = between.T @ (share * between)
    weight = torch.cat([of_point, of_pillar], dim=1).double()
    inside = of_point.double()
    variance = ((inside @ within) * inside).sum(dim=1) + ((weight @ among) * weight).sum(dim=1)
    return (weight @ middle).to(of_point.dtype), variance.to(of_point.dtype)


@torch.no_grad()
def _keep(norm: nn.BatchNorm1d, average: Tensor, variance: Tensor, count: int) -> None:
    """Update of the running statistics, as the norm itself does it."""
    assert norm.momentum is not None
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    norm.get_buffer("running_mean").lerp_(average, norm.momentum)
    norm.get_buffer("running_var").lerp_(variance * (count / (count - 1)), norm.momentum)
