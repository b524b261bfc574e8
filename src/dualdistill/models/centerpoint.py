"""CenterPoint with pillars or voxels: the LiDAR teacher, and with virtual points in its batches the MVP teacher.

Source: CenterPoint (Yin et al., CVPR 2021), MVP (Yin et al., NeurIPS 2021); docs/methods/centerpoint.md.
"""

import math
from dataclasses import dataclass, field, fields

from torch import nn

from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_decode import decode
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.center_training import center_losses, center_targets
from dualdistill.models.head_criterion import CenterCriterion
from dualdistill.models.layers.second import Second, SecondFpn
from dualdistill.models.pillars import PillarEncoder
from dualdistill.models.voxels import VoxelConfig, VoxelEncoder
from dualdistill.settings import Few, Natural, Positive, PositiveShare, checked
from dualdistill.structures import Batch, BevOutput, Boxes, Losses, Targets


@dataclass(frozen=True, kw_only=True)
@checked
class CenterPointConfig:
    """A pillar CenterPoint, by default the 0.2 m teacher of DistillBEV and DualDistill.

    With `voxel` it is a voxel CenterPoint: see `voxel_centerpoint`.
    """

    point_channels: Few = 5
    """Channels of a point: 5 for LiDAR (x, y, z, intensity, time lag), 17 with virtual points."""
    reach: Positive = 51.2
    """The map covers [-reach, reach) along x and y, metres."""
    z_range: tuple[float, float] = (-5.0, 3.0)
    """Heights of points, metres."""
    pillar: Positive = 0.2
    """Side of a pillar, metres."""
    pillar_channels: tuple[Few, ...] = (64,)
    """Width of each point layer; the last is that of the canvas. (32, 64) is the original CenterPoint's."""
    pillar_points: Few | None = None
    """Points of each pillar, filled up with empty rows or cut, as in hard voxelisation (published: 20); None for
    dynamic pillars. For weights that were trained so."""
    pillar_height: bool = False
    """Describe points by their height above the middle of their pillar too, as mmdetection3d does since 1.0.0rc1."""
    voxel: VoxelConfig | None = None
    """Voxels and sparse convolutions instead of pillars, which then must be left at their defaults."""
    stage_channels: tuple[Few, ...] = (64, 128, 256)
    stage_layers: tuple[Natural, ...] = (3, 5, 5)
    """Convolutions of each stage after its strided one."""
    stage_strides: tuple[Few, ...] = (2, 2, 2)
    neck_channels: Few = 128
    """Channels of each stage's part of the neck."""
    neck_stage: Natural = 1
    """The neck, and with it the head, has the resolution of this stage."""
    norm_momentum: PositiveShare = 0.01
    """Momentum of the running statistics of the batch norms before the head. Trainings of a few hundred steps need 0.1,
    or the statistics still depend on the start."""
    head: CenterHeadConfig = field(default_factory=CenterHeadConfig)

    def __post_init__(self) -> None:
        lengths = [len(self.stage_channels), len(self.stage_layers), len(self.stage_strides)]
        if len(set(lengths)) != 1 or not lengths[0]:
            raise ValueError(f"each stage needs channels, layers and a stride, got {lengths} of them")
        if self.neck_stage >= lengths[0]:
            raise ValueError(f"neck_stage must be one of {lengths[0]} stages, got {self.neck_stage}")
        if self.point_channels < 3 or not self.pillar_channels:
            raise ValueError("points need x, y, z and at least one layer")
        if self.z_range[0] >= self.z_range[1]:
            raise ValueError(f"z_range must rise, got {self.z_range}")
        if self.voxel is not None:
            idle = [f.name for f in fields(self) if f.name.startswith("pillar") and getattr(self, f.name) != f.default]
            if idle:
                raise ValueError(f"{', '.join(idle)} has no effect with voxels: leave it out")
            self.voxel.depth(self.z_range)  # raises where nothing would be left along z
        self.canvas_grid.coarser(math.prod(self.stage_strides))  # raises where a map would not fit

    @property
    def points_grid(self) -> BevGrid:
        """The pillars, or the voxels seen from above."""
        return BevGrid.around(self.reach, self.pillar if self.voxel is None else self.voxel.size)

    @property
    def canvas_grid(self) -> BevGrid:
        """The grid of the canvas: the pillars, or the output of the sparse encoder."""
        return self.points_grid.coarser(1 if self.voxel is None else self.voxel.stride)

    @property
    def canvas_channels(self) -> int:
        return self.pillar_channels[-1] if self.voxel is None else self.voxel.canvas_channels(self.z_range)

    @property
    def head_grid(self) -> BevGrid:
        """The grid of the neck and of the predictions."""
        return self.canvas_grid.coarser(math.prod(self.stage_strides[: self.neck_stage + 1]))

    def build(self) -> "CenterPoint":
        return CenterPoint(self)


def voxel_centerpoint(size: float = 0.1, *, point_channels: int = 5) -> CenterPointConfig:
    """The published voxel CenterPoints (docs/methods/centerpoint.md#variants):
    0.1 m over ±51.2 m, and 0.075 m over ±54 m.

    Raises:
        ValueError: for another size.
    """
    reaches = {0.1: 51.2, 0.075: 54.0}
    if size not in reaches:
        raise ValueError(f"published voxels are 0.1 m or 0.075 m, got {size}")
    return CenterPointConfig(
        point_channels=point_channels,
        reach=reaches[size],
        voxel=VoxelConfig(size=size),
        stage_channels=(128, 256),
        stage_layers=(5, 5),
        stage_strides=(1, 2),
        neck_channels=256,
        neck_stage=0,
    )


class CenterPoint(nn.Module):
    """LiDAR detector: points, BEV canvas, backbone, neck and head."""

    def __init__(self, config: CenterPointConfig):
        super().__init__()
        self.config = config
        self.encoder = _encoder(config)
        self.backbone = Second(config.canvas_channels, config.stage_channels, config.stage_layers, config.stage_strides)
        at_neck = math.prod(config.stage_strides[: config.neck_stage + 1])
        scales = [math.prod(config.stage_strides[: stage + 1]) / at_neck for stage in range(len(config.stage_channels))]
        widths = [config.neck_channels] * len(scales)
        self.neck = SecondFpn(config.stage_channels, widths, scales)
        for part in (self.encoder, self.backbone, self.neck):
            for module in part.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    module.momentum = config.norm_momentum
        self.head = config.head.build(in_channels=sum(widths))

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the losses, by name."""
        return self.config.head.weights

    def forward(self, batch: Batch) -> BevOutput:
        """Maps and predictions of a batch. Raises ValueError if the batch has no points, or points of another number of
        channels."""
        if batch.points is None:
            raise ValueError("CenterPoint needs LiDAR points, this batch has none: set points in its data config")
        channels = batch.points.features.shape[1]
        if channels != self.config.point_channels:
            raise ValueError(f"this CenterPoint takes points of {self.config.point_channels} channels, got {channels}")
        canvas = self.encoder(batch.points, len(batch))
        stages = self.backbone(canvas)
        neck = self.neck(stages)
        return BevOutput(
            extent=self.config.canvas_grid.extent,
            canvas=canvas,
            stages=stages,
            neck=neck,
            predictions=self.head(neck),
            head=self.head,
        )

    def targets(self, batch: Batch) -> Targets:
        """What the head should predict."""
        center = center_targets(batch.boxes, self.config.head_grid, self.config.head)
        return Targets(boxes=batch.boxes, heatmap=center.heatmap, depth=batch.depth, center=center)

    def losses(self, output: BevOutput, targets: Targets) -> Losses:
        """Unweighted, against `self.targets` of the batch; see `center_losses`."""
        return center_losses(output.predictions, targets.center, self.config.head.task_of_class)

    def detect(self, output: BevOutput, batch: Batch) -> tuple[Boxes, ...]:
        """Boxes of each sample in the augmented BEV frame, with scores."""
        return decode(output.predictions, self.config.head_grid, self.config.head)

    def criterion(self) -> CenterCriterion:
        """Decoding and losses of this detector's head, for response distillation; holds no weights."""
        return CenterCriterion(self.config.head_grid, self.config.head)


def _encoder(config: CenterPointConfig) -> PillarEncoder | VoxelEncoder:
    if config.voxel is not None:
        return VoxelEncoder(config.point_channels, config.voxel, config.points_grid, config.z_range)
    return PillarEncoder(
        config.point_channels,
        config.pillar_channels,
        config.points_grid,
        config.z_range,
        max_points=config.pillar_points,
        height_column=config.pillar_height,
    )
