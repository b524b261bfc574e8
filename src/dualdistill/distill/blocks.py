"""Small parts that several distillers are built from."""

from collections.abc import Callable

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


class FrozenModule(nn.Module):
    """Holds a frozen module that moves along to other devices, but is nobody's child.

    It stays in evaluation mode, no optimiser finds its parameters, and no state dict of the holder keeps them.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self._held = (module.eval().requires_grad_(False),)

    @property
    def module(self) -> nn.Module:
        return self._held[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FrozenModule":
        self.module._apply(fn, recurse)
        return super()._apply(fn, recurse)
