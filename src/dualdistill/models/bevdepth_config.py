"""Configuration of the camera student, and the two published students named BEVDepth.

Source: BEVDepth (Li et al., AAAI 2023); docs/methods/bevdepth.md#two-designs lists how the two differ, row by row. The
defaults are the DualDistill student (tag DB-4D there), except for two switches that only published weights need:
cells are found by floor, and an earlier map is warped by cell centres.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.image_backbone import ImageConfig
from dualdistill.settings import Few, NonNegative, Positive, checked

MAX_BINS = 1024
"""Depth bins of a student."""


@dataclass(frozen=True, kw_only=True)
@checked
class LiftConfig:
    """From image features to a BEV map: depth network, its supervision, pooling."""

    depth_range: tuple[Positive, Positive] = (1.0, 60.0)
    """Lower edge of the first bin, end of the last, metres along the optical axis."""
    depth_step: Positive = 1.0
    """Metres a bin."""
    context_channels: Few = 64
    """Channels of the lifted features."""
    hidden_channels: Few = 256
    """Hidden channels of the depth network."""
    net: Literal["gated", "squeeze"] = "gated"
    """Camera-aware design. "gated": depth gated by a camera vector of 33 numbers (BEVDet); "squeeze":
    depth and context gated by one of 27 (official)."""
    blocks: Few = 3
    """Residual blocks of the depth network."""
    deformable: bool = True
    """End the depth network in a deformable convolution; off, in an ordinary one of that shape."""
    refine: bool = False
    """Convolutions over depth and image column before pooling (official, "DA"). They need the whole lifted volume."""
    loss: Literal["sigmoid", "softmax"] = "sigmoid"
    """Form of the depth loss. Lifting always takes the softmax of the logits."""
    loss_weight: NonNegative = 100.0
    """Weight of the depth loss; the two losses are normalised differently, see `depth_net`."""
    z_range: tuple[float, float] = (-10.0, 10.0)
    """Heights that are pooled, metres in the BEV frame."""
    index: Literal["floor", "truncate"] = "floor"
    """Rounding of coordinates to cells in pooling; published weights were trained with "truncate"."""

    def __post_init__(self) -> None:
        low, high = self.depth_range
        if low >= high or (high - low) / self.depth_step > MAX_BINS:
            raise ValueError(
                f"depth_range must rise, in at most {MAX_BINS} bins of depth_step, got {self.depth_range} and "
                f"{self.depth_step}"
            )
        if self.z_range[0] >= self.z_range[1]:
            raise ValueError(f"z_range must be a lower, then an upper bound, got {self.z_range}")
        if self.net == "squeeze" and self.hidden_channels % 4:
            raise ValueError(
                f"net 'squeeze' has a convolution of four groups: hidden_channels must be a multiple of 4, "
                f"got {self.hidden_channels}"
            )

    @property
    def bins(self) -> int:
        """Number of depth bins."""
        low, high = self.depth_range
        return math.ceil((high - low) / self.depth_step - 1e-6)

    def depths(self) -> Float[Tensor, "depth"]:
        """Lower edge of each depth bin, metres."""
        return self.depth_range[0] + self.depth_step * torch.arange(self.bins)


@dataclass(frozen=True, kw_only=True)
@checked
class TemporalConfig:
    """Number of key frames, and fusion of the earlier one, which gets no gradient."""

    frames: Literal[1, 2] = 2
    fusion: Literal["warp", "lift"] = "warp"
    """Alignment of the frames. "warp": the earlier map is made with the poses of the current frame, then resampled by
    the car's motion (BEVDet4D), and the head predicts velocities as displacements between the frames; "lift": it is
    lifted directly into the current frame (official)."""
    blocks: Few = 2
    """Residual blocks on each frame's map before it is warped ("warp" with two frames)."""
    anchor: Literal["center", "lower_edge"] = "center"
    """Point of a cell that "warp" samples at; published weights were trained with "lower_edge"."""

    @property
    def warps(self) -> bool:
        """True if an earlier map is resampled in the current frame."""
        return self.frames == 2 and self.fusion == "warp"


@dataclass(frozen=True, kw_only=True)
@checked
class BevConfig:
    """The BEV map and its encoder."""

    reach: Positive = 51.2
    """The map covers [-reach, reach)² metres."""
    cell: Positive = 0.8
    """Side of a cell, metres."""
    encoder: Literal["residual", "resnet"] = "residual"
    """Architecture. "residual": three strided stages, finest and coarsest merged (BEVDet); "resnet": stem
    and stages of a ResNet-18, all merged with the map itself (official)."""
    widths: tuple[Few, Few, Few] = (128, 256, 512)
    """Channels of the stages at 1/2, 1/4 and 1/8 of the map."""
    blocks: Few = 2
    """Residual blocks a stage."""
    neck_channels: Few = 256
    """Channels of the head's input."""
    final_norm: bool = True
    """End "residual" in norm and ReLU, as LiDAR teachers do (DistillBEV)."""

    def __post_init__(self) -> None:
        if self.grid.width % 8:
            raise ValueError(f"the encoder halves the map three times: {self.grid.width} cells are no multiple of 8")
        if self.encoder == "resnet" and self.neck_channels % 4:
            raise ValueError(f"encoder 'resnet' stacks four levels: {self.neck_channels} neck channels do not divide")
        if self.encoder == "resnet" and self.final_norm:
            raise ValueError("final_norm has no effect on encoder 'resnet': set it to False")

    @property
    def grid(self) -> BevGrid:
        return BevGrid.around(self.reach, self.cell)


@dataclass(frozen=True, kw_only=True)
@checked
class BevDepthConfig:
    """A camera student. The image size comes from the batch."""

    image: ImageConfig = field(default_factory=ImageConfig)
    lift: LiftConfig = field(default_factory=LiftConfig)
    temporal: TemporalConfig = field(default_factory=TemporalConfig)
    bev: BevConfig = field(default_factory=BevConfig)
    head: CenterHeadConfig = field(default_factory=lambda: CenterHeadConfig(velocity_weight=1.0, nms="scale"))
    pretrained: str = "none"
    """Weights file (student.safetensors) of a trained student of this architecture to start from; "none": random
    weights, except for those of `image.pretrained`."""

    def __post_init__(self) -> None:
        if self.pretrained != "none" and self.image.pretrained != "none":
            raise ValueError(
                f"pretrained is {self.pretrained}, which holds the image backbone, too: image.pretrained has no "
                "effect, set it to none"
            )

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the losses of `BevDepth.losses`, by name."""
        return self.head.weights | {"depth": self.lift.loss_weight}


def distill_bevdepth(
    *,
    backbone: str = "resnet50",
    pretrained: str = "none",
    frames: Literal[1, 2] = 2,
    final_norm: bool = True,
    released: bool = False,
) -> BevDepthConfig:
    """The student of DistillBEV and DualDistill, in the LiDAR frame (DB-4D; BD-4D without `final_norm`; one frame:
    BD-1). `released`: as published weights were trained: truncated cells, warped by lower edges, activations
    recomputed."""
    return BevDepthConfig(
        image=ImageConfig(backbone=backbone, pretrained=pretrained, checkpointing=released),
        lift=LiftConfig(index="truncate" if released else "floor"),
        temporal=TemporalConfig(frames=frames, anchor="lower_edge" if released else "center"),
        bev=BevConfig(final_norm=final_norm),
        head=CenterHeadConfig(velocity_weight=1.0 if frames == 2 else 0.2, nms="scale"),
    )


def official_bevdepth(
    *,
    backbone: str = "resnet50",
    pretrained: str = "none",
    frames: Literal[1, 2] = 2,
    refine: bool = False,
    released: bool = False,
) -> BevDepthConfig:
    """The paper's detector, in the ego frame (OFF-1 and OFF-2; with `refine` OFF-2-DA). `released`: as published
    weights were trained: truncated cells, blue-green-red images."""
    return BevDepthConfig(
        image=ImageConfig(
            backbone=backbone,
            pretrained=pretrained,
            neck="second",
            frozen_stem=True,
            channel_order="bgr" if released else "rgb",
        ),
        lift=LiftConfig(
            depth_range=(2.0, 58.0),
            depth_step=0.5,
            context_channels=80,
            hidden_channels=512,
            net="squeeze",
            refine=refine,
            loss="softmax",
            loss_weight=3.0,
            z_range=(-5.0, 3.0),
            index="truncate" if released else "floor",
        ),
        temporal=TemporalConfig(frames=frames, fusion="lift"),
        bev=BevConfig(encoder="resnet", widths=(160, 320, 640), final_norm=False),
        head=CenterHeadConfig(velocity_weight=1.0 if frames == 2 else 0.5, nms="circle"),
    )
