"""The rows of the paper at a size that trains on two cores, for the synthetic world (or any small nuScenes cut).

Everything is the full-size recipe in small: maps of half the side over the same ground, narrower layers, smaller
images, fewer steps. The ratios that matter to distillation (strides between levels, teacher wider than student) stay.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from dualdistill.data.config import (
    BevAugmentation,
    DataConfig,
    ImageAugmentation,
    InstancesConfig,
    ObjectSampling,
    VirtualPointsConfig,
)
from dualdistill.distill.label_encoder import LabelEncoderConfig
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.training import OptimiserConfig, TrainingConfig
from dualdistill.models.bevdepth_config import BevConfig, BevDepthConfig, LiftConfig, TemporalConfig
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.centerpoint import CenterPointConfig
from dualdistill.models.image_backbone import ImageConfig
from dualdistill.models.voxels import VoxelConfig
from dualdistill.recipes.family import Builders, Family, Teacher

TEACHER_STEPS = 500
STUDENT_STEPS = 400
"""Steps of every student, alone or distilled: they are compared at equal budget."""

REACH = 38.4
"""Half the side of every map, metres: 48 x 48 cells of 1.6 m before the head."""

HEAD = CenterHeadConfig(shared_channels=16, head_channels=8, heatmap_bias=-4.6)
"""Starts at a probability of 0.01: a short training has no steps to spend on learning that most cells are empty."""


def _data(**changes: Any) -> DataConfig:
    config = DataConfig(
        image_size=(64, 192),
        image_augmentation=ImageAugmentation(scale=(0.0, 0.0), test_scale=0.0, flip=0.0, rotation=(0.0, 0.0)),
        bev_augmentation=BevAugmentation(rotation=(0.0, 0.0), scale=(1.0, 1.0), flip_x=0.5, flip_y=0.0),
        depth_stride=8,
        num_sweeps=5,
        random_sweeps=False,
        point_range=(-REACH, -REACH, -5.0, REACH, REACH, 3.0),
        box_reach=REACH,
    )
    return replace(config, **changes)


def _training(steps: int) -> TrainingConfig:
    cycle = OptimiserConfig(schedule="cyclic", learning_rate=3e-4, cycle_peak=10.0, cycle_rise=0.1, clip_norm=35.0)
    return TrainingConfig(optimiser=cycle, batch_size=2, epochs=None, steps=steps, save_every=250)


def _network(kind: Teacher) -> CenterPointConfig:
    if kind == "centerpoint-voxel":
        return CenterPointConfig(
            reach=REACH,
            voxel=VoxelConfig(size=0.2, channels=(8, 16, 16, 32), out_channels=16, blocks=1, backend="reference"),
            stage_channels=(32, 64),
            stage_layers=(2, 2),
            stage_strides=(1, 2),
            neck_channels=48,
            neck_stage=0,
            norm_momentum=0.1,
            head=HEAD,
        )
    return CenterPointConfig(
        point_channels=17 if kind == "mvp" else 5,
        reach=REACH,
        pillar=0.4,
        pillar_channels=(16,),
        stage_channels=(16, 32, 64),
        stage_layers=(1, 2, 2),
        neck_channels=32,
        norm_momentum=0.1,
        head=HEAD,
    )


def teacher(kind: Teacher) -> Experiment:
    """The LiDAR teacher: 0.4 m pillars or 0.2 m voxels, five sweeps; MVP: with virtual points."""
    return Experiment(
        data=_data(
            cameras=False,
            depth=False,
            num_frames=1,
            object_sampling=ObjectSampling(),
            # perfect masks: an oracle, to be named as one
            virtual_points=VirtualPointsConfig(masks="synthetic") if kind == "mvp" else None,
        ),
        training=_training(TEACHER_STEPS),
        teacher=_network(kind),
    )


def student() -> Experiment:
    """The camera student: small images, features lifted at stride 8, one frame (an earlier one costs a third more).

    Its BEV encoder is the official one, whose neck takes the map itself: the other's finest level would be 3.2 m a cell
    here, too coarse for most objects.
    """
    return Experiment(
        data=_data(points=False, num_frames=1),
        training=_training(STUDENT_STEPS),
        student=BevDepthConfig(
            image=ImageConfig(backbone="test_resnet", channels=64, stride=8),
            lift=LiftConfig(
                context_channels=32, hidden_channels=64, blocks=1, deformable=False, loss="softmax", loss_weight=3.0
            ),
            temporal=TemporalConfig(frames=1),
            bev=BevConfig(
                reach=REACH,
                cell=1.6,
                encoder="resnet",
                widths=(32, 64, 128),
                blocks=1,
                neck_channels=64,
                final_norm=False,
            ),
            head=replace(HEAD, nms="scale"),
        ),
    )


FAMILY = Family(
    name="synthetic",
    teacher=teacher,
    student=student,
    label_encoder=LabelEncoderConfig(hidden_channels=48),
    label_training=_training(TEACHER_STEPS),
    instances=InstancesConfig(masks="synthetic"),
    keypoints=8,  # at 1.6 m a cell, the relations of 24² keypoints would add nothing
)
distilled = FAMILY.distilled

BUILDERS: Builders = {
    "teacher-centerpoint": ("LiDAR teacher: CenterPoint, 0.4 m pillars", partial(teacher, "centerpoint")),
    "teacher-centerpoint-voxel": (
        "LiDAR teacher: CenterPoint, 0.2 m voxels, plain PyTorch",
        partial(teacher, "centerpoint-voxel"),
    ),
    "teacher-mvp": ("LiDAR and camera teacher: CenterPoint on virtual points (MVP)", partial(teacher, "mvp")),
    "student": ("camera student alone", student),
    **FAMILY.builders(),
}
"""By name without the family: what it is, and how to build it."""
