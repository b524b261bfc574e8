"""Pillars as published: points copied into padded voxels, a point network over the padding and all.

Source: PointPillars (Lang et al., CVPR 2019), section 2.1, with the caps and the order of the released CPU form
(docs/methods/centerpoint.md#pillar-features):
of each pillar the first 20 points, of a scene the first 30,000 pillars in
training, 40,000 in evaluation. The loop over points is replaced by a sort; its time is part of what is measured.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dualdistill.geometry.grid import BevGrid


def hard_voxels(
    points: Float[Tensor, "points code"], cell: Int[Tensor, "points"], max_points: int, max_pillars: int
) -> tuple[Float[Tensor, "pillars rows code"], Int[Tensor, "pillars"], Int[Tensor, "pillars"]]:
    """Padded points of each pillar, how many of them are real, and its flat cell; all points in the map, first come,
    first served."""
    cells, pillar = torch.unique(cell, return_inverse=True)
    first = torch.full_like(cells, len(points)).scatter_reduce(0, pillar, torch.arange(len(points)), "amin")
    by_arrival = first.argsort()[:max_pillars]
    rank = torch.full_like(cells, -1)
    rank[by_arrival] = torch.arange(len(by_arrival))
    pillar = rank[pillar]
    order = pillar.argsort(stable=True)
    order = order[pillar[order] >= 0]
    pillar = pillar[order]
    count = torch.bincount(pillar, minlength=len(by_arrival))
    row = torch.arange(len(order)) - (count.cumsum(0) - count)[pillar]
    kept = row < max_points
    voxels = points.new_zeros(len(by_arrival), max_points, points.shape[1])
    voxels[pillar[kept], row[kept]] = points[order[kept]]
    return voxels, count.clamp(max=max_points), cells[by_arrival]


def hard_pillars(
    points: Float[Tensor, "points code"],
    cell: Int[Tensor, "points"],
    grid: BevGrid,
    linear: nn.Linear,
    norm: nn.BatchNorm1d,
    *,
    max_points: int,
    max_pillars: int,
    skip_padding: bool = False,
) -> Float[Tensor, "1 chan y x"]:
    """The canvas of one sample, channels first.

    Args:
        skip_padding: Leave the padding out of the maximum; published networks do not, and then differ from dynamic
            pillars.
    """
    voxels, count, cells = hard_voxels(points, cell, max_points, max_pillars)
    mean = voxels[:, :, :3].sum(dim=1, keepdim=True) / count[:, None, None]
    column_row = torch.stack([cells % grid.width, cells // grid.width], dim=1)
    middle = (column_row + 0.5) * grid.cell + points.new_tensor([grid.x_min, grid.y_min])
    described = torch.cat([voxels, voxels[:, :, :3] - mean, voxels[:, :, :2] - middle[:, None]], dim=2)
    real = (torch.arange(max_points) < count[:, None])[:, :, None]
    hidden = linear(described * real)
    hidden = F.relu(norm(hidden.permute(0, 2, 1)).permute(0, 2, 1))
    if skip_padding:
        hidden = hidden * real  # nothing is less than zero any more
    pooled = hidden.amax(dim=1)
    canvas = pooled.new_zeros(pooled.shape[1], grid.height * grid.width)
    canvas[:, cells] = pooled.T
    return canvas.view(1, -1, grid.height, grid.width)
