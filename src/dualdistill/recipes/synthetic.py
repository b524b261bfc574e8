"""The rows of the paper at a size that trains on two cores, for the synthetic world (or any small nuScenes cut).

Everything is the full-size recipe in small: maps of half the side over the same ground, narrower layers, smaller
images, fewer steps. The ratios that distillation sees (strides between the levels, teacher wider than student) are kept.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from dualdistill.data.config import DataConfig
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
HEAD = CenterHeadConfig(shared_channels=32, head_channels=16)


def _optimiser(peak: float) -> OptimiserConfig:
    return OptimiserConfig(schedule="cyclic", learning_rate=peak / 10, cycle_peak=10.0, cycle_rise=0.3, clip_norm=35.0)


def _teacher() -> CenterPointConfig:
    return CenterPointConfig(
        pillar=0.4,
        pillar_channels=(32,),
        stage_channels=(32, 64, 128),
        stage_layers=(1, 2, 2),
        neck_channels=64,
        head=HEAD,
    )


def teacher_centerpoint() -> Experiment:
    """The LiDAR teacher: 0.4 m pillars, a map of 64 x 64 cells before the head."""
    return Experiment(
        data=DataConfig(cameras=False, depth=False, num_frames=1),
        training=TrainingConfig(optimiser=_optimiser(3e-3), batch_size=4, epochs=None, steps=500, save_every=250),
        teacher=_teacher(),
    )


def student() -> Experiment:
    """The camera student: small images, features lifted at stride 8, 64 x 64 BEV cells, two frames."""
    return Experiment(
        data=DataConfig(points=False, image_size=(64, 192), depth_stride=8),
        training=TrainingConfig(optimiser=_optimiser(2e-3), batch_size=4, epochs=None, steps=500, save_every=250),
        student=BevDepthConfig(
            image=ImageConfig(backbone="resnet10t", channels=96, stride=8),
            lift=LiftConfig(context_channels=32, hidden_channels=64, blocks=1, deformable=False, loss_weight=30.0),
            temporal=TemporalConfig(frames=2, blocks=1),
            bev=BevConfig(cell=1.6, widths=(32, 64, 128), blocks=1, neck_channels=96),
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
