"""What the recipe families share: the distillers of the comparison and of the paper's ablations, how a student is
distilled, and which rows a family has."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from dualdistill.data.config import InstancesConfig
from dualdistill.distill.distillbev import DistillBevConfig
from dualdistill.distill.dualdistill import CrdConfig, DualDistillConfig, MfdConfig
from dualdistill.distill.label_encoder import LabelEncoderConfig
from dualdistill.distill.labeldistill import LabelDistillConfig, ResponseConfig
from dualdistill.distill.method import DistillerConfig
from dualdistill.distill.mfd import RegionConfig
from dualdistill.distill.tig_bev import TigBevConfig
from dualdistill.distill.x3kd import X3kdConfig, XisConfig
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.training import TeacherPrecision, TrainingConfig

Teacher = Literal["centerpoint", "centerpoint-voxel", "mvp"]
"""Kinds of teachers: names in recipes."""

TEACHERS: tuple[Teacher, ...] = ("centerpoint", "centerpoint-voxel", "mvp")

Rows = dict[str, tuple[str, DistillerConfig]]
"""Suffix of a recipe's name, or the name of its method: what it is, and the distiller."""

Builders = dict[str, tuple[str, Callable[[], Experiment]]]
"""By name without the family: what a recipe is, and how to build it."""


def _mfd(**settings: Any) -> DualDistillConfig:
    """DualDistill with other settings of its feature distillation."""
    return DualDistillConfig(mfd=MfdConfig(**settings))


ABLATIONS: Rows = {
    "no-crd": ("feature distillation only", DualDistillConfig(crd=None)),
    "no-mfd": ("response distillation only", DualDistillConfig(mfd=None)),
    "upsample-conv": ("MFD aligned by three convolutions, as in DistillBEV", _mfd(alignment="upsample-conv")),
    "attention": ("MFD aligned by attention only", _mfd(alignment="attention")),
    "orthogonal": ("MFD aligned by the orthogonal projector only", _mfd(alignment="orthogonal")),
    "aoa-released": ("AOA with the released projector, which collapses to zero", _mfd(alignment="aoa-released")),
    "head-only": ("MFD before the head only, with CRD", _mfd(student_stages=(), teacher_stages=())),
    "ground-truth": ("CRD with annotations as labels", DualDistillConfig(crd=CrdConfig(labels="ground_truth"))),
    "temperature-1.0": ("CRD labels at temperature 1.0", DualDistillConfig(crd=CrdConfig(temperature=1.0))),
    "temperature-0.5": ("CRD labels at temperature 0.5", DualDistillConfig(crd=CrdConfig(temperature=0.5))),
    "relative": (
        "not in the paper: MFD relative to the teacher's features of objects",
        _mfd(regions=RegionConfig(relative=True)),
    ),
}
"""Ablations of DualDistill. The paper's CRD labels are the teacher's at temperature 0.1."""

LABEL_ABLATIONS: Rows = {
    "label-only": ("LabelDistill with label features only", LabelDistillConfig(lidar_weight=None, response=None)),
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


def distillers(teacher: Teacher, *, keypoints: int = 24) -> Rows:
    """Every distilled recipe under a teacher by name, such as "dualdistill-mvp-no-crd"; under voxels the main row of
    each method, no ablations. `keypoints`: of TiG-BEV, along each side of a box."""
    voxels = teacher == "centerpoint-voxel"
    stages = (0, 1) if voxels else (1, 2)  # at the strides of the student's levels
    main: Rows = {
        "dualdistill": ("DualDistill: AOA, MFD and CRD", _mfd(teacher_stages=stages)),
        "distillbev": (
            "DistillBEV: balanced feature imitation at three levels",
            DistillBevConfig(teacher_stages=stages),
        ),
        "tigbev": ("TiG-BEV: relative depth and feature relations inside objects", TigBevConfig(keypoints=keypoints)),
        "x3kd": ("X3KD-style: no code is public, details are assumed", X3kdConfig()),
        "x3kd-full": (
            "X3KD-style with X-IS: image features also learn instance segmentation",
            X3kdConfig(xis=XisConfig()),
        ),
        "labeldistill": (
            "LabelDistill: LiDAR features, label features and responses",
            LabelDistillConfig(teacher_stages=stages),
        ),
    }
    rows = {f"{method}-{teacher}": row for method, row in main.items()}
    if not voxels:
        rows |= {f"dualdistill-{teacher}-{suffix}": row for suffix, row in ABLATIONS.items()}
        rows |= {f"labeldistill-{teacher}-{suffix}": row for suffix, row in LABEL_ABLATIONS.items()}
    return rows


@dataclass(frozen=True, kw_only=True)
class Family:
    """Recipes of one size, for one kind of data."""

    name: str
    teacher: Callable[[Teacher], Experiment]
    """The LiDAR teacher of a kind."""
    student: Callable[[], Experiment]
    """The camera student alone."""
    label_encoder: LabelEncoderConfig
    label_training: TrainingConfig
    """Training of the label encoders."""
    instances: InstancesConfig
    """Source of instance masks."""
    teacher_precision: TeacherPrecision = "fp32"
    """Precision of a frozen teacher's forward pass."""
    keypoints: int = 24
    """TiG-BEV's keypoints along each side of a box."""

    def through_teacher(self, kind: Teacher) -> Experiment:
        """LabelDistill's label encoder: annotations, read out by the frozen head of the teacher."""
        base = self.teacher(kind)
        annotations = replace(base.data, points=False, virtual_points=None, class_balanced=False, object_sampling=None)
        return Experiment(
            data=annotations,
            training=self.label_training,
            teacher=base.teacher,
            teacher_recipe=f"{self.name}/teacher-{kind}",
            label_encoder=self.label_encoder,
        )

    def control(self, kind: Teacher, student: Callable[[], Experiment] | None = None) -> Experiment:
        """The student, started from the teacher's task heads and not distilled: the gain over the student alone that is
        not distillation's."""
        return replace(
            (student or self.student)(),
            teacher=self.teacher(kind).teacher,
            teacher_recipe=f"{self.name}/teacher-{kind}",
            init_head_from_teacher=True,
        )

    def distilled(
        self,
        distiller: DistillerConfig,
        kind: Teacher,
        student: Callable[[], Experiment] | None = None,
        *,
        gradient_share: float | None = None,
    ) -> Experiment:
        """The student at the same budget with a teacher, which gets the same scenes under the same augmentation.
        `student`: another one than the family's."""
        control, requires = self.control(kind, student), distiller.requires
        data = replace(
            control.data,
            points=True,
            depth_instance=requires.depth_instances,
            instances=self.instances if requires.instance_masks else None,
            virtual_points=self.teacher(kind).data.virtual_points,
        )
        return replace(
            control,
            data=data,
            training=replace(control.training, teacher_precision=self.teacher_precision, gradient_share=gradient_share),
            distiller=distiller,
            label_encoder=self.label_encoder if requires.label_encoder else None,
            label_encoder_recipe=f"{self.name}/label-encoder-{kind}" if requires.label_encoder else None,
        )

    def builders(self) -> Builders:
        """The rows of label encoders, controls and distilled students under every teacher."""
        rows: Builders = {}
        for kind in TEACHERS:
            rows[f"label-encoder-{kind}"] = ("label encoder for LabelDistill", partial(self.through_teacher, kind))
            rows[f"control-{kind}"] = (
                "control: starts from the teacher's task heads, no distillation",
                partial(self.control, kind),
            )
            methods = distillers(kind, keypoints=self.keypoints)
            for name, (summary, distiller) in methods.items():
                rows[name] = (summary, partial(self.distilled, distiller, kind))
            main = methods[f"dualdistill-{kind}"][1]
            rows[f"dualdistill-{kind}-plus"] = (
                "not in the paper: distillation's gradient on the BEV map at most half of the head's",
                partial(self.distilled, main, kind, gradient_share=0.5),
            )
        return rows
