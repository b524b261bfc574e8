"""The paper's rows at full size: nuScenes, BEVDepth-R50 at 256x704 and R101 at 512x1408.

Sources: spec dualdistill 5 and 10, bevdepth 11, centerpoint 15 and 16. Batch sizes are per process: the published runs
used 2 x 16 (students) and 8 x 4 (teachers), which `--devices` and `--set training.accumulate` bring back.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from dualdistill.data.config import DataConfig, ImageAugmentation, ObjectSampling, VirtualPointsConfig
from dualdistill.models.bevdepth_config import BevDepthConfig, distill_bevdepth, official_bevdepth
from dualdistill.models.centerpoint import CenterPointConfig
from dualdistill.recipes.experiment import DistillerConfig, Experiment
from dualdistill.recipes.variants import Teacher, sees_owners, taught_by
from dualdistill.train.module import TrainingConfig
from dualdistill.train.schedule import OptimiserConfig

IMAGE_SIZES = {"resnet50": (256, 704), "resnet101": (512, 1408)}
TEACHERS: dict[Teacher, VirtualPointsConfig | None] = {
    "centerpoint": None,
    "mvp": VirtualPointsConfig(masks="maskrcnn"),
}
"""What each teacher sees beyond the LiDAR's points."""


def teacher(kind: Teacher) -> Experiment:
    """The LiDAR teacher: dynamic 0.2 m pillars, ten sweeps, class-balanced, pasted objects; MVP: virtual points."""
    cycle = OptimiserConfig(
        schedule="cyclic",
        learning_rate=1e-4,
        cycle_peak=10.0,
        cycle_rise=0.4,
        weight_decay=0.01,
        clip_norm=35.0,
    )
    return Experiment(
        data=DataConfig(
            cameras=False,
            depth=False,
            num_frames=1,
            class_balanced=True,
            object_sampling=ObjectSampling(),
            virtual_points=TEACHERS[kind],
        ),
        training=TrainingConfig(optimiser=cycle, batch_size=4, epochs=20),
        teacher=_network(kind),
    )


def student(backbone: str = "resnet50") -> Experiment:
    """BEVDepth with two frames, as DistillBEV and DualDistill train it without a teacher."""
    size = IMAGE_SIZES[backbone]
    return Experiment(
        data=DataConfig(points=False, image_size=size, class_balanced=True),
        training=TrainingConfig(optimiser=OptimiserConfig(), batch_size=16, epochs=24, precision="bf16"),
        student=_bevdepth(backbone),
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
        training=TrainingConfig(optimiser=optimiser, batch_size=8, epochs=24, precision="bf16"),
        student=official_bevdepth(pretrained="hub"),
    )


def distilled(distiller: DistillerConfig, kind: Teacher, backbone: str = "resnet50") -> Experiment:
    """The student of `student`, taught; the teacher sees the same scene under the same augmentation."""
    alone = student(backbone)
    return replace(
        alone,
        data=replace(alone.data, points=True, depth_owner=sees_owners(distiller), virtual_points=TEACHERS[kind]),
        teacher=_network(kind),
        teacher_recipe=f"nuscenes/teacher-{kind}",
        distiller=distiller,
        inherit_head=True,
    )


def _network(kind: Teacher) -> CenterPointConfig:
    return CenterPointConfig(point_channels=5 if TEACHERS[kind] is None else 17)


def _bevdepth(backbone: str) -> BevDepthConfig:
    return distill_bevdepth(backbone=backbone, pretrained="hub")


BUILDERS: dict[str, tuple[str, Callable[[], Experiment]]] = {
    "teacher-centerpoint": ("LiDAR teacher: CenterPoint, 0.2 m pillars", partial(teacher, "centerpoint")),
    "teacher-mvp": ("LiDAR and camera teacher: CenterPoint on virtual points (MVP)", partial(teacher, "mvp")),
    "student": ("camera student alone: BEVDepth-R50, 256x704, two frames", student),
    "student-r101": ("camera student alone: BEVDepth-R101, 512x1408, two frames", partial(student, "resnet101")),
    "student-official": ("official BEVDepth-R50, two key frames, ego frame", student_official),
}
"""By name without the family: what it is, and how to build it."""

for _kind in TEACHERS:
    for _name, (_summary, _distiller) in taught_by(_kind).items():
        BUILDERS[_name] = (f"R50: {_summary}", partial(distilled, _distiller, _kind))
        BUILDERS[f"{_name}-r101"] = (f"R101: {_summary}", partial(distilled, _distiller, _kind, "resnet101"))
