"""The paper's rows at full size: nuScenes, BEVDepth-R50 at 256x704 and R101 at 512x1408.

Sources: docs/methods/dualdistill.md#training-recipe,
docs/methods/bevdepth.md#training-recipe, docs/methods/centerpoint.md#training-recipe. Batch sizes are those of
all devices together, as published: 2 x 16 (students), 8 x 4 (teachers), 8 x 8 (official BEVDepth). A device that is
too small for its share takes `--set training.batch_size=B training.accumulate=A` with the same product.
"""

from dataclasses import replace
from functools import partial

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
from dualdistill.models.bevdepth_config import distill_bevdepth, official_bevdepth
from dualdistill.models.centerpoint import CenterPointConfig, voxel_centerpoint
from dualdistill.recipes.family import KEY_FRAME_PARTITION, TEACHERS, Builders, Family, Teacher, distillers

KEPT = 3
"""Checkpoints of a run that stay on disk, beside the best: with its optimiser, one takes 12 bytes a parameter."""
IMAGE_SIZES = {"resnet50": (256, 704), "resnet101": (512, 1408)}


def teacher(kind: Teacher) -> Experiment:
    """The LiDAR teacher: dynamic 0.2 m pillars or 0.1 m voxels, ten sweeps, class-balanced, pasted objects; MVP:
    virtual points."""
    cycle = OptimiserConfig(
        schedule="cyclic", learning_rate=1e-4, cycle_peak=10.0, cycle_rise=0.4, weight_decay=0.01, clip_norm=35.0
    )
    pillars = CenterPointConfig(point_channels=17 if kind == "mvp" else 5)
    return Experiment(
        data=DataConfig(
            cameras=False,
            depth=False,
            num_frames=1,
            class_balanced=True,
            object_sampling=ObjectSampling(),
            virtual_points=VirtualPointsConfig(masks="maskrcnn") if kind == "mvp" else None,
        ),
        training=TrainingConfig(optimiser=cycle, batch_size=32, epochs=20, keep_last=KEPT),
        teacher=voxel_centerpoint() if kind == "centerpoint-voxel" else pillars,
    )


def teacher_of_small_voxels() -> Experiment:
    """The teacher of 0.075 m voxels, under its stronger augmentation (docs/methods/centerpoint.md#augmentation).
    Its maps cover ±54 m, so that no student of ±51.2 m can be distilled from it."""
    base, network = teacher("centerpoint-voxel"), voxel_centerpoint(0.075)
    reach = network.reach
    data = replace(
        base.data,
        point_range=(-reach, -reach, -5.0, reach, reach, 3.0),
        box_reach=reach,
        bev_augmentation=BevAugmentation(rotation=(-0.7854, 0.7854), scale=(0.9, 1.1), translation_sd=0.5),
    )
    return replace(base, data=data, teacher=network)


def student(backbone: str = "resnet50") -> Experiment:
    """BEVDepth with two frames, as DistillBEV and DualDistill train it without a teacher."""
    size = IMAGE_SIZES[backbone]
    return Experiment(
        data=DataConfig(points=False, image_size=size, class_balanced=True),
        training=TrainingConfig(
            optimiser=OptimiserConfig(), batch_size=32, epochs=24, precision="bf16", keep_last=KEPT
        ),
        student=distill_bevdepth(backbone=backbone, pretrained="hub"),
    )


def student_official() -> Experiment:
    """The official BEVDepth with two key frames, in the ego frame; cannot be distilled from a LiDAR-frame teacher."""
    optimiser = OptimiserConfig(weight_decay=1e-7, drops=(19 / 24, 23 / 24), warmup_steps=0, clip_norm=5.0)
    return Experiment(
        data=DataConfig(
            points=False,
            bev_frame="ego",
            previous_frame="key",
            depth_range=(2.0, 58.0),
            depth_variant="official",
            image_augmentation=ImageAugmentation(scale=(-0.054, 0.11), test_scale=0.0),
        ),
        training=TrainingConfig(optimiser=optimiser, batch_size=64, epochs=24, precision="bf16", keep_last=KEPT),
        student=official_bevdepth(pretrained="hub"),
    )


FAMILY = Family(
    name="nuscenes",
    teacher=teacher,
    student=student,
    label_encoder=LabelEncoderConfig(),
    label_training=TrainingConfig(  # docs/methods/labeldistill.md#training-recipe
        optimiser=OptimiserConfig(
            learning_rate=1e-3, weight_decay=1e-7, drops=(10 / 12, 11 / 12), warmup_steps=0, clip_norm=5.0
        ),
        batch_size=16,
        epochs=12,
        precision="bf16",
        ema_decay=0.999,
        keep_last=KEPT,
    ),
    instances=InstancesConfig(masks="maskrcnn"),
    teacher_precision="bf16",
)
distilled = FAMILY.distilled

BUILDERS: Builders = {
    "teacher-centerpoint": ("LiDAR teacher: CenterPoint, 0.2 m pillars", partial(teacher, "centerpoint")),
    "teacher-centerpoint-voxel": (
        "LiDAR teacher: CenterPoint, 0.1 m voxels (spconv)",
        partial(teacher, "centerpoint-voxel"),
    ),
    "teacher-centerpoint-voxel-0.075": (
        "LiDAR teacher: CenterPoint, 0.075 m voxels over ±54 m (spconv)",
        teacher_of_small_voxels,
    ),
    "teacher-mvp": ("LiDAR and camera teacher: CenterPoint on virtual points (MVP)", partial(teacher, "mvp")),
    "student": ("camera student alone: BEVDepth-R50, 256x704, two frames", student),
    "student-r101": ("camera student alone: BEVDepth-R101, 512x1408, two frames", partial(student, "resnet101")),
    "student-official": ("official BEVDepth-R50, two key frames, ego frame", student_official),
    **FAMILY.builders(),
}
"""By name without the family: what it is, and how to build it."""

for _kind in TEACHERS:
    for _name, (_summary, _distiller) in distillers(_kind).items():
        BUILDERS[f"{_name}-r101"] = (
            f"R101, {_summary}",
            partial(distilled, _distiller, _kind, partial(student, "resnet101")),
        )
_summary, _distiller = KEY_FRAME_PARTITION
for _kind in ("centerpoint", "mvp"):
    BUILDERS[f"labeldistill-{_kind}-key-frame"] = (_summary, partial(distilled, _distiller, _kind))
