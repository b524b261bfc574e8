"""Residual blocks of the camera student (docs/methods/bevdepth.md#bev-encoder)."""

from typing import Literal

from torch import nn

from dualdistill.ops.residual import ResidualBlock

Shortcut = Literal["convolution", "projection"]
"""Shortcut of a stage's first block: "convolution", 3x3 with bias and no norm, always (BEVDet code base); or
"projection", 1x1 with norm, only where the shape changes (ResNet)."""


def conv_norm_relu(
    in_channels: int, out_channels: int, *, kernel: int = 3, dilation: int = 1, bias: bool = False
) -> nn.Sequential:
    """Convolution that keeps the size, batch norm, ReLU."""
    padding = kernel // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, 1, padding, dilation, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def residual_stage(
    in_channels: int, out_channels: int, *, blocks: int, stride: int = 1, shortcut: Shortcut = "convolution"
) -> nn.Sequential:
    """`blocks` residual blocks; the first one changes channels and size."""
    around: nn.Module | None = None
    if shortcut == "convolution":
        around = nn.Conv2d(in_channels, out_channels, 3, stride, 1)
    elif stride != 1 or in_channels != out_channels:
        around = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
        )
    first = ResidualBlock(in_channels, out_channels, stride=stride, shortcut=around)
    return nn.Sequential(first, *(ResidualBlock(out_channels, out_channels) for _ in range(blocks - 1)))
