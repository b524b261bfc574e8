"""Small parts that several distillers are built from."""

from jaxtyping import Float
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to their input, then ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, features: Float[Tensor, "batch chan y x"]) -> Float[Tensor, "batch chan y x"]:
        out = self.norm1(self.conv1(features)).relu()
        return (self.norm2(self.conv2(out)) + features).relu()
