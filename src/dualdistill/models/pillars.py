"""Pillar features: LiDAR points, sorted into tall cells, become a BEV map.

Source: PointPillars (Lang et al., CVPR 2019) with dynamic voxelisation; spec centerpoint 7 and 8
(`pillar02_dyn`). No cap on points or pillars. Differs from the released code in that points outside the range
are dropped first; there they belong to no pillar either, but take part in the batch norm's training
statistics.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.voxelize import Pillars, dynamic_voxelize, scatter_max, scatter_mean
from dualdistill.structures import Points


class PointLayer(nn.Module):
    """Linear, batch norm over points, ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.norm = nn.BatchNorm1d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, features: Float[Tensor, "points _"]) -> Float[Tensor, "points chan"]:
        hidden, norm = self.linear(features), self.norm
        # Fewer than two points have no statistics to train with: the running ones serve.
        if norm.training and len(hidden) < 2:
            statistics = (norm.running_mean, norm.running_var)
            return F.batch_norm(hidden, *statistics, norm.weight, norm.bias, eps=norm.eps).relu()
        return norm(hidden).relu()


class PillarEncoder(nn.Module):
    """Points to a canvas: each pillar's feature is the maximum over its points of a small point network.

    With more than one layer, the pillar's maximum joins each of its points before the next layer.
    """

    def __init__(self, point_channels: int, channels: Sequence[int], grid: BevGrid, z_range: tuple[float, float]):
        """
        Args:
            point_channels: Of `Points.features`, x, y, z first.
            channels: Width of each layer; the last is the canvas'.
            grid: The pillars.
            z_range: Heights a point may have, metres, half open.
        """
        super().__init__()
        self.grid = grid
        self.z_range = z_range
        widths = (point_channels + 5, *(2 * width for width in channels[:-1]))
        self.layers = nn.ModuleList(map(PointLayer, widths, channels))

    def forward(self, points: Points, batch_size: int) -> Float[Tensor, "batch chan y x"]:
        """The canvas; zero where no point fell."""
        # Raw coordinates enter the first layer: bfloat16 would round 50 m to a quarter of a metre.
        with torch.autocast(points.features.device.type, enabled=False):
            raw = points.features.float()
            pillars = dynamic_voxelize(raw[:, :3], points.sample, self.grid, self.z_range)
            described = decorate(raw.index_select(0, pillars.kept), pillars, self.grid)
            features = self.pool(described, pillars)
        sample, y, x = pillars.cells.unbind(dim=1)
        height, width = self.grid.shape
        canvas = features.new_zeros(batch_size * height * width, features.shape[1])
        canvas = canvas.index_copy(0, (sample * height + y) * width + x, features)
        return canvas.view(batch_size, height, width, -1).permute(0, 3, 1, 2)  # channels last in memory

    def pool(self, described: Float[Tensor, "points _"], pillars: Pillars) -> Float[Tensor, "pillars chan"]:
        """The point network, and its maximum over the points of each pillar."""
        first, *rest = self.layers
        hidden = first(described)
        pooled = scatter_max(hidden, pillars.pillar, len(pillars))
        for layer in rest:
            hidden = layer(torch.cat([hidden, pooled.index_select(0, pillars.pillar)], dim=1))
            pooled = scatter_max(hidden, pillars.pillar, len(pillars))
        return pooled


def decorate(raw: Float[Tensor, "points _"], pillars: Pillars, grid: BevGrid) -> Float[Tensor, "points chan"]:
    """Each kept point's own channels, its offset from the mean of its pillar's points (x, y, z), and its
    offset from the middle of its pillar (x, y); metres."""
    xyz = raw[:, :3]
    mean = scatter_mean(xyz, pillars.pillar, len(pillars))
    y, x = pillars.cells[:, 1], pillars.cells[:, 2]
    middle = (torch.stack([x, y], dim=1) + 0.5) * grid.cell + raw.new_tensor([grid.x_min, grid.y_min])
    reference = torch.cat([mean, middle], dim=1).index_select(0, pillars.pillar)
    return torch.cat([raw, torch.cat([xyz, xyz[:, :2]], dim=1) - reference], dim=1)
