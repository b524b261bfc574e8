"""What the recipe families share: the distillers of the comparison and of the paper's ablations, how a student is
distilled, and which rows a family has."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from dualdistill.data.config import DataConfig, InstancesConfig, VirtualPointsConfig
from dualdistill.distill.distillbev import DistillBevConfig
from dualdistill.distill.dualdistill import CrdConfig, DualDistillConfig, MfdConfig
from dualdistill.distill.label_encoder import LabelEncoderConfig
from dualdistill.distill.labeldistill import LabelDistillConfig, ResponseConfig
from dualdistill.distill.method import DistillerConfig
from dualdistill.distill.mfd import RegionConfig
from dualdistill.distill.tig_bev import TigBevConfig
from dualdistill.distill.x3kd import X3kdConfig, XisConfig
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.training import TrainingConfig
from dualdistill.models.centerpoint import CenterPointConfig

Teacher = Literal["centerpoint", "centerpoint-voxel", "mvp"]
"""Kinds of teachers: names in recipes."""

Rows = dict[str, tuple[str, DistillerConfig]]
"""Suffix of a recipe's name, or the name of its method: what it is, and the distiller."""

ABLATIONS: Rows = {
    "no-crd": ("feature distillation only", DualDistillConfig(crd=None)),
    "no-mfd": ("response distillation only", DualDistillConfig(mfd=None)),
    "upsample-conv": (
        "MFD aligned by three convolutions, as in DistillBEV",
        DualDistillConfig(mfd=MfdConfig(alignment="upsample-conv")),
    ),
    "attention": ("MFD aligned by attention only", DualDistillConfig(mfd=MfdConfig(alignment="attention"))),
    "orthogonal": (
        "MFD aligned by the orthogonal projector only",
        DualDistillConfig(mfd=MfdConfig(alignment="orthogonal")),
    ),
    "aoa-released": (
        "AOA with the released projector, which collapses to zero",
        DualDistillConfig(mfd=MfdConfig(alignment="aoa-released")),
    ),
    "head-only": (
        "MFD before the head only, with CRD",
        DualDistillConfig(mfd=MfdConfig(student_stages=(), teacher_stages=())),
    ),
    "ground-truth": ("CRD with annotations as labels", DualDistillConfig(crd=CrdConfig(labels="ground_truth"))),
    "temperature-1.0": ("CRD labels at temperature 1.0", DualDistillConfig(crd=CrdConfig(temperature=1.0))),
    "temperature-0.5": ("CRD labels at temperature 0.5", DualDistillConfig(crd=CrdConfig(temperature=0.5))),
    "relative": (
        "not in the paper: MFD relative to the teacher's features of objects",
        DualDistillConfig(mfd=MfdConfig(regions=RegionConfig(relative=True))),
    ),
}
"""Ablations of DualDistill. The paper's CRD labels are the teacher's at temperature 0.1."""

LABEL_ABLATIONS: Rows = {
    "label-only": (
        "LabelDistill with label features only",
        LabelDistillConfig(lidar_weight=None, response=None),
    ),
    "lidar-only": ("LabelDistill without labels: LiDAR features and responses", LabelDistillConfig(label_weight=None)),
    "no-partition": ("LabelDistill without channel partition", LabelDistillConfig(partition="none")),
    "soft-response": (
        "LabelDistill with a heat map loss that can also raise scores",
        LabelDistillConfig(response=ResponseConfig(target="soft")),
    ),
}
"""Ablations of LabelDistill."""

KEY_FRAME_PARTITION = (
    "LabelDistill with the channel partition on the current frame",
    LabelDistillConfig(partition="key_frame"),
)
"""A row for students of two frames; with one it is what the others are."""


def methods(*, teacher_stages: tuple[int, int] = (1, 2), keypoints: int = 24) -> Rows:
    """The main row of each method on the same student, teacher and data. `teacher_stages`: encoder stages of the
    teacher at the strides of the student's levels; `keypoints`: of TiG-BEV, along each side of a box."""
    return {
        "dualdistill": (
            "DualDistill: AOA, MFD and CRD",
            DualDistillConfig(mfd=MfdConfig(teacher_stages=teacher_stages)),
        ),
        "distillbev": (
            "DistillBEV: balanced feature imitation at three levels",
            DistillBevConfig(teacher_stages=teacher_stages),
        ),
        "tigbev": ("TiG-BEV: relative depth and feature relations inside objects", TigBevConfig(keypoints=keypoints)),
        "x3kd": ("X3KD-style: no code is public, details are assumed", X3kdConfig()),
        "x3kd-full": (
            "X3KD-style with X-IS: image features also learn instance segmentation",
            X3kdConfig(xis=XisConfig()),
        ),
        "labeldistill": (
            "LabelDistill: LiDAR features, label features and responses",
            LabelDistillConfig(teacher_stages=teacher_stages),
        ),
    }


def distillers(teacher: Teacher, *, keypoints: int = 24) -> Rows:
    """Every distilled recipe under a teacher by name, such as "dualdistill-mvp-no-crd"; under voxels the main row of
    each method, no ablations."""
    voxels = teacher == "centerpoint-voxel"  # two stages, where pillars have their second and third
    main = methods(teacher_stages=(0, 1) if voxels else (1, 2), keypoints=keypoints)
    rows = {f"{method}-{teacher}": row for method, row in main.items()}
    if not voxels:
        rows |= {f"dualdistill-{teacher}-{suffix}": row for suffix, row in ABLATIONS.items()}
        rows |= {f"labeldistill-{teacher}-{suffix}": row for suffix, row in LABEL_ABLATIONS.items()}
    return rows


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
            rows[f"label-encoder-{kind}"] = ("label encoder for LabelDistill", partial(label_encoder, kind))
            rows[f"control-{kind}"] = (
                "control: starts from the teacher's task heads, no distillation",
                partial(self._control, student, kind),
            )
            methods = distillers(kind, keypoints=self.keypoints)
            for name, (summary, distiller) in methods.items():
                rows[name] = (summary, partial(distilled, distiller, kind))
            main = partial(distilled, methods[f"dualdistill-{kind}"][1], kind)
            rows[f"dualdistill-{kind}-plus"] = (
                "not in the paper: distillation's gradient on the BEV map at most half of the head's",
                partial(_bounded, main),
            )
        return rows

    def _control(self, student: Callable[[], Experiment], kind: Teacher) -> Experiment:
        return self.control(student(), kind)


def _bounded(distilled: Callable[[], Experiment]) -> Experiment:
    experiment = distilled()
    return replace(experiment, training=replace(experiment.training, gradient_share=0.5))
