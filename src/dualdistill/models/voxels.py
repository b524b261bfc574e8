"""Voxel features: from LiDAR points, averaged in small cells, to a BEV map by SECOND's sparse convolutions.

Source: SECOND (Yan et al., 2018) in the residual form of CenterPoint; docs/methods/centerpoint.md#sparse-encoder.
Without biases, as in mmdetection3d; the original CenterPoint's, before norms, change nothing but the means these
subtract. Differs from the published code in that no cell drops points and no scene drops cells: there, of the points of
a cell only the first ten count, and cells beyond the first 90 000 (training) to 160 000 (test) are not seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.blocks import normed
from dualdistill.ops.sparse_conv import Sites, SparseTensor, Triple, flat_index, strided_shape
from dualdistill.ops.sparse_spconv import SpconvTensor, spconv
from dualdistill.ops.voxelize import scatter_mean
from dualdistill.settings import Few, Positive, checked
from dualdistill.structures import Points

SparseMap = SparseTensor | SpconvTensor
"""A sparse map, computed by plain PyTorch or by spconv."""

_LAST_DOWN_PADDING = (0, 1, 1)
"""The coarsest stage has no padding along z: 11 cells become 5."""
_OUTPUT = {"kernel": (3, 1, 1), "stride": (2, 1, 1), "padding": (0, 0, 0)}
"""Settings of the last convolution, which is vertical."""


class SparseConv(nn.Module):
    """A sparse convolution without bias: submanifold, or with a stride."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Triple = (3, 3, 3),
        stride: Triple | None = None,
        padding: Triple = (1, 1, 1),
    ):
        """`stride`: None for a submanifold convolution, which needs no padding either."""
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.padding = padding
        # One axis for the kernel: channels-last memory, applied to the whole network, is not defined for 5D weights.
        self.weight = nn.Parameter(torch.empty(out_channels, math.prod(kernel), in_channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: SparseMap) -> SparseMap:
        weight = self.weight.unflatten(1, self.kernel)
        if self.stride is None:
            return x.submanifold(weight)
        return x.strided(weight, self.stride, self.padding)


class SparseLayer(nn.Module):
    """Convolution, batch norm over the occupied cells, ReLU."""

    def __init__(self, conv: SparseConv):
        super().__init__()
        self.conv = conv
        self.norm = _norm(len(conv.weight))

    def forward(self, x: SparseMap) -> SparseMap:
        x = self.conv(x)
        return x.with_features(normed(self.norm, x.features).relu())


class SparseBlock(nn.Module):
    """Two submanifold convolutions with a shortcut around them."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = SparseLayer(SparseConv(channels, channels))
        self.conv = SparseConv(channels, channels)
        self.norm = _norm(channels)

    def forward(self, x: SparseMap) -> SparseMap:
        y = self.conv(self.first(x))
        return y.with_features((normed(self.norm, y.features) + x.features).relu())


class SparseEncoder(nn.Module):
    """Residual stages, each but the last followed by a layer of stride 2; the cells along z become channels."""

    def __init__(self, in_channels: int, channels: Sequence[int], out_channels: int, blocks: int):
        """`out_channels`: channels of each cell along z of the output; `channels` and `blocks` (residual ones) are
        those of each stage."""
        super().__init__()
        self.input = SparseLayer(SparseConv(in_channels, channels[0]))
        self.stages = nn.ModuleList(nn.Sequential(*(SparseBlock(width) for _ in range(blocks))) for width in channels)
        paddings = down_paddings(len(channels))
        self.downs = nn.ModuleList(
            SparseLayer(SparseConv(before, width, stride=(2, 2, 2), padding=padding))
            for (before, width), padding in zip(pairwise(channels), paddings, strict=True)
        )
        self.output = SparseLayer(SparseConv(channels[-1], out_channels, **_OUTPUT))

    def forward(self, x: SparseMap) -> Float[Tensor, "batch chan y x"]:
        """BEV map, whose channel c * depth + d is channel c of the d-th cell along z."""
        x = self.stages[0](self.input(x))
        for down, stage in zip(self.downs, self.stages[1:], strict=True):
            x = stage(down(x))
        return self.output(x).dense().flatten(1, 2)


def down_paddings(stages: int) -> list[Triple]:
    """Padding of the strided layer after each stage but the last."""
    return [(1, 1, 1)] * (stages - 2) + [_LAST_DOWN_PADDING] * (stages > 1)


def cells_left(depth: int, stages: int) -> int:
    """Cells along z of the encoder's output, for `depth` cells of its input."""
    shape = (depth, 1, 1)
    for padding in down_paddings(stages):
        shape = strided_shape(shape, (3, 3, 3), (2, 2, 2), padding)
    return strided_shape(shape, **_OUTPUT)[0]


def _norm(channels: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)


@dataclass(frozen=True, kw_only=True)
@checked
class VoxelConfig:
    """Voxels and their sparse encoder; the defaults are the published 0.1 m ones."""

    size: Positive = 0.1
    """Side of a voxel along x and y, metres. 0.075 is the other published one."""
    height: Positive = 0.2
    """Height of a voxel, metres."""
    channels: tuple[Few, ...] = (16, 32, 64, 128)
    """Channels of each stage; each but the first has half the resolution of the one before."""
    out_channels: Few = 128
    """Channels of each cell along z of the encoder's output; together they are those of the canvas."""
    blocks: Few = 2
    """Residual blocks of each stage."""
    backend: Literal["spconv", "reference"] = "spconv"
    """Library of the sparse convolutions: spconv (extra "voxel"), or plain PyTorch, slower, with the same result."""

    def __post_init__(self) -> None:
        if not self.channels:
            raise ValueError("voxels need at least one stage: channels is empty")

    @property
    def stride(self) -> int:
        """Voxels along the side of a cell of the canvas."""
        return 2 ** (len(self.channels) - 1)

    def depth(self, z_range: tuple[float, float]) -> int:
        """Cells along z: one more than the range holds, as published, so that 41 become 21, 11, 5 and 2. Raises
        ValueError if none would be left."""
        low, high = z_range
        cells = round((high - low) / self.height)
        if abs(cells * self.height - (high - low)) > 1e-6 * self.height:
            raise ValueError(f"voxels {self.height} m high do not divide the range {z_range}")
        if cells_left(cells + 1, len(self.channels)) < 1:
            raise ValueError(f"{cells} voxels along z are too few for {len(self.channels)} stages")
        return cells + 1

    def canvas_channels(self, z_range: tuple[float, float]) -> int:
        return self.out_channels * cells_left(self.depth(z_range), len(self.channels))

    def check_backend(self) -> None:
        """Check that the library of the sparse convolutions is installed. Raises UserError if the backend is spconv and
        it is not installed."""
        if self.backend == "spconv":
            spconv()


class VoxelEncoder(nn.Module):
    """Encoder from points to a canvas: means of voxels, then sparse convolutions."""

    def __init__(self, point_channels: int, config: VoxelConfig, grid: BevGrid, z_range: tuple[float, float]):
        """
        Args:
            point_channels: Of `Points.features`, x, y, z first.
            grid: The voxels, seen from above.
            z_range: Heights a point may have, metres, half open.
        """
        super().__init__()
        self.config = config
        self.grid = grid
        self.z_range = z_range
        self.sparse = SparseEncoder(point_channels, config.channels, config.out_channels, config.blocks)

    def forward(self, points: Points, batch_size: int) -> Float[Tensor, "batch chan y x"]:
        """The canvas; zero where nothing is occupied. Raises UserError if the backend is spconv and it is not
        installed."""
        # Raw coordinates enter the first layer: bfloat16 would round 50 m to a quarter of a metre.
        with torch.autocast(points.features.device.type, enabled=False):
            features, sites = self.average(points, batch_size)
            return self.sparse(self.tensor(features, sites))

    def average(self, points: Points, batch_size: int) -> tuple[Float[Tensor, "sites chan"], Sites]:
        """Mean of the points of each voxel, all channels; points out of range are in none."""
        raw = points.features.float()
        low, high = self.z_range
        inside_z = (raw[:, 2] >= low) & (raw[:, 2] < high)
        columns = self.grid.cells(raw[:, :2])
        kept = (self.grid.inside(columns) & inside_z).nonzero().squeeze(1)
        raw, columns = raw.index_select(0, kept), columns.index_select(0, kept)
        z = ((raw[:, 2] - low) / self.config.height).floor().long()
        cells = torch.stack([points.sample.index_select(0, kept), z, columns[:, 1], columns[:, 0]], dim=1)
        shape = (self.config.depth(self.z_range), self.grid.height, self.grid.width)
        keys, voxel = torch.unique(flat_index(cells, shape), return_inverse=True)
        return scatter_mean(raw, voxel, len(keys)), Sites.of_keys(keys, shape, batch_size)

    def tensor(self, features: Float[Tensor, "sites chan"], sites: Sites) -> SparseMap:
        if self.config.backend == "reference" or not len(sites):  # spconv takes no empty scenes
            return SparseTensor(features, sites)
        return SpconvTensor.of(features, sites)
