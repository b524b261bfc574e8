"""Deformable convolution on torchvision's operator (docs/methods/bevdepth.md#deformable-convolution)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from dualdistill.errors import DivergedError


class DeformableConv(nn.Module):
    """3x3 convolution with learnt offsets of its nine taps; it starts as an ordinary one.

    Version 2 (`modulated`) also weights each tap. Runs in float32, also under autocast: offsets
    in bfloat16 would be rounded to whole cells on wide maps.

    Raises:
        DivergedError: on the CPU, for offsets that are not finite: torchvision would read out of bounds there and may
            end the process. (On a GPU they give NaN outputs or gradients; a check there would synchronise every step.)
    """

    def __init__(self, in_channels: int, out_channels: int, *, modulated: bool, groups: int = 1, bias: bool = True):
        super().__init__()
        self.modulated = modulated
        self.offset = nn.Conv2d(in_channels, 27 if modulated else 18, 3, padding=1)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "images _ h w"]) -> Float[Tensor, "images _ h w"]:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            # 18 offsets, (dy, dx) a tap in row-major order, then nine mask logits
            offset = self.offset(x)
            if offset.device.type == "cpu" and not torch.compiler.is_compiling() and not offset.isfinite().all():
                raise DivergedError(
                    "The offsets of a deformable convolution are not finite: the weights before it diverged."
                )
            mask = offset[:, 18:].sigmoid() if self.modulated else None
            return deform_conv2d(x, offset[:, :18], self.weight, self.bias, padding=1, mask=mask)
