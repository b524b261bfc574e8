"""The rows of the paper at a size that trains on two cores, for the synthetic world (or any small nuScenes cut).

Everything is the full-size recipe in small: maps of half the side over the same ground, narrower layers, smaller
images, fewer steps. The ratios that distillation sees (strides between the levels, teacher wider than student) stay.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from dualdistill.data.config import BevAugmentation, DataConfig, ImageAugmentation, ObjectSampling
from dualdistill.distill.dualdistill import DualDistillConfig
from dualdistill.models.bevdepth_config import BevConfig, BevDepthConfig, LiftConfig, TemporalConfig
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.centerpoint import CenterPointConfig
from dualdistill.models.image_backbone import ImageConfig
from dualdistill.recipes.experiment import Experiment
from dualdistill.recipes.variants import ABLATIONS, named
from dualdistill.train.module import TrainingConfig
from dualdistill.train.schedule import OptimiserConfig

TEACHER = "synthetic/teacher-centerpoint"
STEPS = 320
"""Of every training, the teacher's too: the students are compared at equal budget."""

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


def _training(peak: float) -> TrainingConfig:
    return TrainingConfig(optimiser=_optimiser(peak), batch_size=2, epochs=None, steps=STEPS, save_every=STEPS)


def _optimiser(peak: float) -> OptimiserConfig:
    return OptimiserConfig(schedule="cyclic", learning_rate=peak / 10, cycle_peak=10.0, cycle_rise=0.3, clip_norm=35.0)


def _teacher() -> CenterPointConfig:
    return CenterPointConfig(
        reach=REACH,
        pillar=0.4,
        pillar_channels=(16,),
        stage_channels=(16, 32, 64),
        stage_layers=(1, 2, 2),
        neck_channels=32,
        norm_momentum=0.1,
        head=HEAD,
    )


def teacher_centerpoint() -> Experiment:
    """The LiDAR teacher: 0.4 m pillars, five sweeps."""
    return Experiment(
        data=_data(cameras=False, depth=False, num_frames=1, object_sampling=ObjectSampling()),
        training=_training(3e-3),
        teacher=_teacher(),
    )


def student() -> Experiment:
    """The camera student: small images, features lifted at stride 8, two frames."""
    return Experiment(
        data=_data(points=False),
        training=_training(3e-3),
        student=BevDepthConfig(
            image=ImageConfig(backbone="mobilenetv4_conv_small", channels=64, stride=8),
            lift=LiftConfig(context_channels=32, hidden_channels=64, blocks=1, deformable=False, loss_weight=30.0),
            temporal=TemporalConfig(frames=2, blocks=1),
            bev=BevConfig(reach=REACH, cell=1.6, widths=(32, 64, 128), blocks=1, neck_channels=64),
            head=replace(HEAD, velocity_weight=1.0, nms="scale"),
        ),
    )


def distilled(distiller: DualDistillConfig) -> Experiment:
    """The same student at the same budget, taught by the LiDAR teacher."""
    alone = student()
    return replace(
        alone,
        data=replace(alone.data, points=True),
        teacher=_teacher(),
        teacher_recipe=TEACHER,
        distiller=distiller,
        inherit_head=True,
    )


BUILDERS: dict[str, tuple[str, Callable[[], Experiment]]] = {
    "teacher-centerpoint": ("LiDAR teacher: CenterPoint, 0.4 m pillars", teacher_centerpoint),
    "student": ("camera student alone", student),
}
"""By name without the family: what it is, and how to build it."""

for _suffix, (_summary, _distiller) in ABLATIONS.items():
    BUILDERS[named("dualdistill-centerpoint", _suffix)] = (_summary, partial(distilled, _distiller))
