"""The rows of the paper at a size that trains on two cores, for the synthetic world (or any small nuScenes cut).

Everything is the full-size recipe in small: maps of half the side over the same ground, narrower layers, smaller
images, fewer steps. The ratios that distillation sees (strides between the levels, teacher wider than student) stay.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from dualdistill.data.config import BevAugmentation, DataConfig, ImageAugmentation, ObjectSampling, VirtualPointsConfig
from dualdistill.models.bevdepth_config import BevConfig, BevDepthConfig, LiftConfig, TemporalConfig
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.centerpoint import CenterPointConfig
from dualdistill.models.image_backbone import ImageConfig
from dualdistill.recipes.experiment import DistillerConfig, Experiment
from dualdistill.recipes.variants import Teacher, sees_owners, taught_by
from dualdistill.train.module import TrainingConfig
from dualdistill.train.schedule import OptimiserConfig

TEACHERS: dict[Teacher, VirtualPointsConfig | None] = {
    "centerpoint": None,
    "mvp": VirtualPointsConfig(masks="synthetic"),
}
"""What each teacher sees beyond the LiDAR's points. The synthetic masks are perfect: an oracle, to be named as one."""

TEACHER_STEPS = 350
STUDENT_STEPS = 320
"""Of every student, alone or distilled: they are compared at equal budget."""

REACH = 38.4
"""Half the side of every map, metres: 48 x 48 cells of 1.6 m before the head."""

HEAD = CenterHeadConfig(shared_channels=16, head_channels=8)


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
    return CenterPointConfig(
        point_channels=5 if TEACHERS[kind] is None else 17,
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
    """The LiDAR teacher: 0.4 m pillars, five sweeps; MVP: with virtual points."""
    return Experiment(
        data=_data(
            cameras=False, depth=False, num_frames=1, object_sampling=ObjectSampling(), virtual_points=TEACHERS[kind]
        ),
        training=_training(TEACHER_STEPS),
        teacher=_network(kind),
    )


def student() -> Experiment:
    """The camera student: small images, features lifted at stride 8, one frame (an earlier one costs a third more)."""
    return Experiment(
        data=_data(points=False, num_frames=1),
        training=_training(STUDENT_STEPS),
        student=BevDepthConfig(
            image=ImageConfig(backbone="test_resnet", channels=64, stride=8),
            lift=LiftConfig(
                context_channels=32, hidden_channels=64, blocks=1, deformable=False, loss="softmax", loss_weight=3.0
            ),
            temporal=TemporalConfig(frames=1),
            bev=BevConfig(reach=REACH, cell=1.6, widths=(32, 64, 128), blocks=1, neck_channels=64),
            head=replace(HEAD, nms="scale"),
        ),
    )


def distilled(distiller: DistillerConfig, kind: Teacher) -> Experiment:
    """The same student at the same budget, taught."""
    alone = student()
    return replace(
        alone,
        data=replace(alone.data, points=True, depth_owner=sees_owners(distiller), virtual_points=TEACHERS[kind]),
        teacher=_network(kind),
        teacher_recipe=f"synthetic/teacher-{kind}",
        distiller=distiller,
        inherit_head=True,
    )


BUILDERS: dict[str, tuple[str, Callable[[], Experiment]]] = {
    "teacher-centerpoint": ("LiDAR teacher: CenterPoint, 0.4 m pillars", partial(teacher, "centerpoint")),
    "teacher-mvp": ("LiDAR and camera teacher: CenterPoint on virtual points (MVP)", partial(teacher, "mvp")),
    "student": ("camera student alone", student),
}
"""By name without the family: what it is, and how to build it."""

for _kind in TEACHERS:
    for _name, (_summary, _distiller) in taught_by(_kind).items():
        BUILDERS[_name] = (_summary, partial(distilled, _distiller, _kind))
