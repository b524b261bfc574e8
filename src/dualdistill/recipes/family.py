"""What the recipe families share: how a student is distilled, and which rows a family has."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from dualdistill.data.config import DataConfig, InstancesConfig, VirtualPointsConfig
from dualdistill.distill.label_encoder import LabelEncoderConfig
from dualdistill.distill.method import DistillerConfig
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.training import TrainingConfig
from dualdistill.models.centerpoint import CenterPointConfig
from dualdistill.recipes.variants import Teacher, distillers

TEACHERS: tuple[Teacher, ...] = ("centerpoint", "centerpoint-voxel", "mvp")

Builders = dict[str, tuple[str, Callable[[], Experiment]]]
"""By name without the family: what a recipe is, and how to build it."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Recipes of one size, for one kind of data."""

    name: str
    network: Callable[[Teacher], CenterPointConfig]
    """The teacher of a kind."""
    virtual_points: VirtualPointsConfig
    """Virtual points of the MVP teacher; the others take the LiDAR's points alone."""
    instances: InstancesConfig
    """Source of instance masks."""
    label_encoder: LabelEncoderConfig
    keypoints: int = 24
    """TiG-BEV's keypoints along each side of a box."""

    def points(self, kind: Teacher) -> VirtualPointsConfig | None:
        """Virtual points of a kind of teacher."""
        return self.virtual_points if kind == "mvp" else None

    def through_teacher(self, kind: Teacher, data: DataConfig, training: TrainingConfig) -> Experiment:
        """A label encoder trained through the frozen teacher."""
        return Experiment(
            data=data,
            training=training,
            teacher=self.network(kind),
            teacher_recipe=f"{self.name}/teacher-{kind}",
            label_encoder=self.label_encoder,
        )

    def control(self, alone: Experiment, kind: Teacher) -> Experiment:
        """The student of `alone`, started from the teacher's task heads and not distilled: the gain over `alone` that
        is not distillation's."""
        return replace(
            alone, teacher=self.network(kind), teacher_recipe=f"{self.name}/teacher-{kind}", init_head_from_teacher=True
        )

    def distilled(self, alone: Experiment, distiller: DistillerConfig, kind: Teacher) -> Experiment:
        """The student of `alone` with a teacher, which gets the same scenes under the same augmentation."""
        requires = distiller.requires
        return replace(
            self.control(alone, kind),
            data=replace(
                alone.data,
                points=True,
                depth_instance=requires.depth_instances,
                instances=self.instances if requires.instance_masks else None,
                virtual_points=self.points(kind),
            ),
            distiller=distiller,
            label_encoder=self.label_encoder if requires.label_encoder else None,
            label_encoder_recipe=f"{self.name}/label-encoder-{kind}" if requires.label_encoder else None,
        )

    def builders(
        self,
        label_encoder: Callable[[Teacher], Experiment],
        student: Callable[[], Experiment],
        distilled: Callable[[DistillerConfig, Teacher], Experiment],
    ) -> Builders:
        """The rows of label encoders, controls and distilled students under every teacher."""
        rows: Builders = {}
        for kind in TEACHERS:
            rows[f"label-encoder-{kind}"] = ("label encoder of LabelDistill", partial(label_encoder, kind))
            rows[f"control-{kind}"] = (
                "control: the teacher's task heads to start from, no distillation",
                partial(self._control, student, kind),
            )
            methods = distillers(kind, keypoints=self.keypoints)
            for name, (summary, distiller) in methods.items():
                rows[name] = (summary, partial(distilled, distiller, kind))
            main = partial(distilled, methods[f"dualdistill-{kind}"][1], kind)
            rows[f"dualdistill-{kind}-plus"] = (
                "beyond the paper: distillation's gradient on the BEV map held to half of the head's",
                partial(_bounded, main),
            )
        return rows

    def _control(self, student: Callable[[], Experiment], kind: Teacher) -> Experiment:
        return self.control(student(), kind)


def _bounded(distilled: Callable[[], Experiment]) -> Experiment:
    experiment = distilled()
    return replace(experiment, training=replace(experiment.training, gradient_share=0.5))
