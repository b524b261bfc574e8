"""SECOND's sparse encoder: from features of voxels to a BEV map.

Source: SECOND (Yan et al., 2018) in the residual form of CenterPoint
(docs/methods/centerpoint.md#sparse-encoder). Without biases, as in
mmdetection3d; the original CenterPoint's, before norms, change nothing but the means these subtract.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dualdistill.models.layers.point_norm import normed
from dualdistill.ops.sparse_conv import SparseMap, Triple, strided_shape

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
        """
        Args:
            channels: Channels of each stage.
            out_channels: Channels of each cell along z of the output.
            blocks: Residual blocks of each stage.
        """
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
