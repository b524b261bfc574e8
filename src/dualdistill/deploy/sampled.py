"""Deformable convolution from two operators that are fast in every runtime: sample the nine taps, then convolve them.

torchvision's operator is slower than the two on a CPU, and OpenVINO runs it as a loop that takes two thirds of the time
of a whole student. ONNX Runtime's own is faster than either: ONNX files keep it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dualdistill.models.layers.deformable import DeformableConv


class SampledConv(nn.Module):
    """A trained `DeformableConv` as sampling and convolution, with its weights."""

    def __init__(self, conv: DeformableConv):
        super().__init__()
        self.modulated, self.offset, self.bias = conv.modulated, conv.offset, conv.bias
        self.weight = nn.Parameter(conv.weight.detach().flatten(2).unsqueeze(3))  # out, in, taps, 1
        self.groups = conv.offset.in_channels // conv.weight.shape[1]

    def forward(self, x: Float[Tensor, "images _ h w"]) -> Float[Tensor, "images _ h w"]:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            height, width = x.shape[-2:]
            offset = self.offset(x)
            dy, dx = offset[:, :18].unflatten(1, (9, 2)).unbind(2)  # images taps h w
            tap = torch.arange(9, device=x.device).view(9, 1, 1)
            row = dy + (tap // 3 - 1 + torch.arange(height, device=x.device).view(-1, 1))
            column = dx + (tap % 3 - 1 + torch.arange(width, device=x.device))
            # -1 and 1 are the outer edges of the map; outside it is zero, as in a deformable convolution
            place = torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], dim=-1)
            taps = F.grid_sample(x, _taps_below(place), align_corners=False)  # images chan (h taps) w
            if self.modulated:
                taps = taps * _taps_below(offset[:, 18:].sigmoid()).unsqueeze(1)
            return F.conv2d(taps, self.weight, self.bias, stride=(9, 1), groups=self.groups)


def _taps_below(of_taps: Tensor) -> Tensor:
    """(images, taps, h, ...) to (images, h taps, ...): the taps of a row below each other."""
    return of_taps.transpose(1, 2).flatten(1, 2)


def with_sampled_convs(module: nn.Module) -> None:
    """Replace every deformable convolution inside by a `SampledConv`, in place."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, DeformableConv):
                setattr(parent, name, SampledConv(child))
