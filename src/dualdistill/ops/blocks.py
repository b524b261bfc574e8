"""Building blocks of detectors and distillers."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to the shortcut (the input itself, if not given), then ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, shortcut: nn.Module | None = None):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch _ _ _"]:
        out = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


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


def normed(norm: nn.BatchNorm1d | nn.SyncBatchNorm, features: Float[Tensor, "rows chan"]) -> Float[Tensor, "rows chan"]:
    """`norm` of the features, in training by the running statistics if there are fewer than two rows."""
    if norm.training and len(features) < 2:
        statistics = (norm.running_mean, norm.running_var)
        return F.batch_norm(features, *statistics, norm.weight, norm.bias, eps=norm.eps)
    return norm(features)
