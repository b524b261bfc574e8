"""SECOND's BEV backbone and its pyramid neck.

Source: SECOND (Yan et al., 2018) in the sizes of CenterPoint (docs/methods/centerpoint.md#backbone-and-neck). Module
names follow the published checkpoints: `blocks.{stage}.{3j}` and `deblocks.{level}.0` are convolutions, the next index
is their batch norm.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def with_norm(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    """A convolution, batch norm with SECOND's eps and momentum, ReLU."""
    norm = nn.BatchNorm2d(convolution.out_channels, eps=1e-3, momentum=0.01)
    return nn.Sequential(convolution, norm, nn.ReLU(inplace=True))


class Second(nn.Module):
    """Stages of 3x3 convolutions, the first of each strided."""

    def __init__(self, in_channels: int, channels: Sequence[int], extra_layers: Sequence[int], strides: Sequence[int]):
        """Channels, convolutions after the strided one, and stride relative to the stage before, of each stage."""
        super().__init__()
        stages = []
        for before, width, extra, stride in zip(
            (in_channels, *channels[:-1]), channels, extra_layers, strides, strict=True
        ):
            layers = [*with_norm(nn.Conv2d(before, width, 3, stride, padding=1, bias=False))]
            for _ in range(extra):
                layers += [*with_norm(nn.Conv2d(width, width, 3, padding=1, bias=False))]
            stages.append(nn.Sequential(*layers))
        self.blocks = nn.ModuleList(stages)
        initialise_convolutions(self)

    def forward(self, canvas: Float[Tensor, "batch chan y x"]) -> tuple[Float[Tensor, "batch _ _ _"], ...]:
        """The output of each stage, fine to coarse."""
        return stage_outputs(self.blocks, canvas)


def stage_outputs(stages: nn.ModuleList, x: Float[Tensor, "batch _ _ _"]) -> tuple[Float[Tensor, "batch _ _ _"], ...]:
    """The output of each stage, one after the other."""
    outputs = []
    for stage in stages:
        x = stage(x)
        outputs.append(x)
    return tuple(outputs)


class SecondFpn(nn.Module):
    """Pyramid neck: every stage resized by one convolution to one resolution, and concatenated."""

    def __init__(self, in_channels: Sequence[int], out_channels: Sequence[int], scales: Sequence[float]):
        """
        Args:
            in_channels: Channels of each stage.
            out_channels: Channels of each stage's part of the output.
            scales: Output cells along the side of a cell of each stage: 0.5 is a 2x2 convolution with stride 2, 1 a 1x1
                convolution, 2 a 2x2 transposed convolution with stride 2, and so on. (Some code bases write a 1x1
                transposed convolution for 1: the same map, its weight transposed.)
        """
        super().__init__()
        self.deblocks = nn.ModuleList(
            with_norm(_resize(before, width, scale))
            for before, width, scale in zip(in_channels, out_channels, scales, strict=True)
        )
        initialise_convolutions(self)

    def forward(self, stages: Sequence[Float[Tensor, "batch _ _ _"]]) -> Float[Tensor, "batch chan y x"]:
        levels = [block(stage) for block, stage in zip(self.deblocks, stages, strict=True)]
        return torch.cat(levels, dim=1)


def initialise_convolutions(module: nn.Module) -> None:
    """Kaiming's normal initialisation (fan out) of every convolution, transposed ones too; biases start at zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _resize(in_channels: int, out_channels: int, scale: float) -> nn.Conv2d | nn.ConvTranspose2d:
    size = round(max(scale, 1 / scale))
    if size not in (scale, 1 / scale):
        raise ValueError(f"a scale of the neck must be a whole number or the inverse of one, got {scale}")
    kind = nn.ConvTranspose2d if scale > 1 else nn.Conv2d
    return kind(in_channels, out_channels, kernel_size=size, stride=size, bias=False)
