"""BEV encoders: from the fused camera map to three stages and the input of the head
(docs/methods/bevdepth.md#bev-encoder)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dualdistill.models.layers.second import SecondFpn, stage_outputs
from dualdistill.ops.blocks import conv_norm_relu, residual_stage

Stages = tuple[Float[Tensor, "batch _ _ _"], ...]
StagesAndNeck = tuple[Stages, Float[Tensor, "batch chan y x"]]


class ResidualEncoder(nn.Module):
    """Three residual stages at 1/2, 1/4, 1/8 of the map, the first and last of them merged (BEVDet code base)."""

    def __init__(
        self, in_channels: int, widths: Sequence[int], out_channels: int, *, blocks: int = 2, final_norm: bool = True
    ):
        """`final_norm`: end in norm and ReLU: a non-negative map, as a LiDAR teacher's."""
        super().__init__()
        sources = (in_channels, *widths[:-1])
        self.stages = nn.ModuleList(
            residual_stage(source, width, blocks=blocks, stride=2)
            for source, width in zip(sources, widths, strict=True)
        )
        self.neck = UpsamplingNeck(widths[0], widths[-1], out_channels, final_norm=final_norm)

    def forward(self, canvas: Float[Tensor, "batch _ y x"]) -> StagesAndNeck:
        stages = stage_outputs(self.stages, canvas)
        return stages, self.neck(stages[0], stages[-1])


class UpsamplingNeck(nn.Module):
    """The coarsest stage enlarged onto the finest, both merged and enlarged to the size of the canvas."""

    def __init__(self, fine_channels: int, coarse_channels: int, out_channels: int, *, final_norm: bool):
        super().__init__()
        hidden = 2 * out_channels
        self.enlarge_coarse = nn.UpsamplingBilinear2d(scale_factor=4)  # corners aligned
        self.merge = nn.Sequential(
            conv_norm_relu(fine_channels + coarse_channels, hidden), conv_norm_relu(hidden, hidden)
        )
        self.enlarge = nn.UpsamplingBilinear2d(scale_factor=2)
        self.refine = conv_norm_relu(hidden, out_channels)
        self.output = nn.Conv2d(out_channels, out_channels, 1)
        self.final = nn.Sequential(nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)) if final_norm else nn.Identity()

    def forward(
        self, fine: Float[Tensor, "batch _ _ _"], coarse: Float[Tensor, "batch _ _ _"]
    ) -> Float[Tensor, "batch chan y x"]:
        merged = self.merge(torch.cat([fine, self.enlarge_coarse(coarse)], dim=1))
        return self.final(self.output(self.refine(self.enlarge(merged))))


class ResNetEncoder(nn.Module):
    """A wide ResNet-18 without max-pooling; the canvas itself enters the neck too (official BEVDepth)."""

    def __init__(self, in_channels: int, widths: Sequence[int], out_channels: int, *, blocks: int = 2):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 7, 2, 3, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        )
        sources = (widths[0], *widths[:-1])
        self.stages = nn.ModuleList(
            residual_stage(source, width, blocks=blocks, stride=1 if i == 0 else 2, shortcut="projection")
            for i, (source, width) in enumerate(zip(sources, widths, strict=True))
        )
        levels = (in_channels, *widths)
        scales = tuple(2.0**i for i in range(len(levels)))
        self.neck = SecondFpn(levels, [out_channels // len(levels)] * len(levels), scales)

    def forward(self, canvas: Float[Tensor, "batch _ y x"]) -> StagesAndNeck:
        stages = stage_outputs(self.stages, self.stem(canvas))
        return stages, self.neck((canvas, *stages))
