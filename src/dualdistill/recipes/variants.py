"""The distillers of the comparison and the ablations of the paper; the same for every family."""

from dataclasses import replace
from typing import Literal

from dualdistill.distill.distillbev import DistillBevConfig
from dualdistill.distill.dualdistill import DualDistillConfig
from dualdistill.distill.labeldistill import LabelDistillConfig
from dualdistill.distill.mfd import RegionConfig
from dualdistill.distill.tig_bev import TigBevConfig
from dualdistill.distill.x3kd import X3kdConfig
from dualdistill.experiment.experiment import DistillerConfig

Teacher = Literal["centerpoint", "centerpoint-voxel", "mvp"]
"""Who teaches: names in recipes."""

ABLATIONS: dict[str, tuple[str, DualDistillConfig]] = {
    "": ("DualDistill: AOA, MFD and CRD", DualDistillConfig()),
    "no-crd": ("feature distillation only", DualDistillConfig(crd=False)),
    "no-mfd": ("response distillation only", DualDistillConfig(mfd=False)),
    "upsample-conv": (
        "aligned by three convolutions, as DistillBEV does",
        DualDistillConfig(alignment="upsample-conv"),
    ),
    "attention": ("aligned by attention alone", DualDistillConfig(alignment="attention")),
    "orthogonal": ("aligned by the orthogonal projector alone", DualDistillConfig(alignment="orthogonal")),
    "aoa-released": (
        "AOA with the released projector, which collapses to zero",
        DualDistillConfig(alignment="aoa-released"),
    ),
    "head-only": ("MFD before the head only, with CRD", DualDistillConfig(student_stages=(), teacher_stages=())),
    "ground-truth": ("CRD taught by annotations", DualDistillConfig(crd_labels="ground_truth")),
    "temperature-1.0": ("CRD labels at temperature 1.0", DualDistillConfig(crd_temperature=1.0)),
    "temperature-0.5": ("CRD labels at temperature 0.5", DualDistillConfig(crd_temperature=0.5)),
    "plus": (
        "beyond the paper: feature differences count relative to the teacher's features of objects",
        DualDistillConfig(regions=RegionConfig(relative=True)),
    ),
}
"""Suffix of a DualDistill recipe: what it is, and the distiller. The paper's CRD labels are the teacher's at 0.1."""

RIVALS: dict[str, tuple[str, DistillerConfig]] = {
    "distillbev": ("DistillBEV: balanced feature imitation at three levels", DistillBevConfig()),
    "tigbev": ("TiG-BEV: inner depth and inner features of objects", TigBevConfig()),
    "x3kd": ("X3KD-style, after the paper: no code is public, details are assumed", X3kdConfig()),
    "x3kd-full": (
        "X3KD-style with X-IS: image features learn from an instance segmenter, too",
        X3kdConfig(instances=True),
    ),
}
"""Other methods on the same student, teacher and data."""

LABEL_ABLATIONS: dict[str, tuple[str, LabelDistillConfig]] = {
    "": ("LabelDistill: features of the LiDAR and of the labels, and responses", LabelDistillConfig()),
    "label-only": (
        "LabelDistill with features of the labels only",
        LabelDistillConfig(lidar=False, response=False),
    ),
    "lidar-only": ("LabelDistill without labels: LiDAR features and responses", LabelDistillConfig(label=False)),
    "no-partition": ("LabelDistill without parting channels", LabelDistillConfig(partition="none")),
    "soft-response": (
        "LabelDistill with a heat map loss that can raise, too",
        LabelDistillConfig(response_target="soft"),
    ),
}
"""Suffix of a LabelDistill recipe: what it is, and the distiller."""
KEY_FRAME_PARTITION = (
    "LabelDistill that parts the current frame's channels",
    LabelDistillConfig(partition="key_frame"),
)
"""A row for students of two frames; with one it is what the others are."""


def taught_by(teacher: Teacher) -> dict[str, tuple[str, DistillerConfig]]:
    """Name of every distilled recipe under this teacher, such as "dualdistill-mvp-no-crd", and its distiller; under
    voxels the main row of each method, no ablations."""
    if teacher == "centerpoint-voxel":
        methods = {"dualdistill": ABLATIONS[""], **RIVALS, "labeldistill": LABEL_ABLATIONS[""]}
        return {f"{name}-{teacher}": (summary, _of_voxels(row)) for name, (summary, row) in methods.items()}
    rows: dict[str, tuple[str, DistillerConfig]] = {
        f"dualdistill-{teacher}" + (f"-{suffix}" if suffix else ""): row for suffix, row in ABLATIONS.items()
    }
    rows |= {f"{method}-{teacher}": row for method, row in RIVALS.items()}
    return rows | {
        f"labeldistill-{teacher}" + (f"-{suffix}" if suffix else ""): row for suffix, row in LABEL_ABLATIONS.items()
    }


def _of_voxels(distiller: DistillerConfig) -> DistillerConfig:
    """The distiller for a voxel teacher: it has two stages, where pillars have their second and third."""
    if isinstance(distiller, DualDistillConfig | DistillBevConfig | LabelDistillConfig):
        return replace(distiller, teacher_stages=tuple(stage - 1 for stage in distiller.teacher_stages))
    return distiller


def learns_from_labels(distiller: DistillerConfig) -> bool:
    """Whether a distiller needs a trained label encoder."""
    return isinstance(distiller, LabelDistillConfig) and distiller.label


def sees_instances(distiller: DistillerConfig) -> bool:
    """Whether a distiller needs to know which objects an instance segmenter sees (`DataConfig.instances`)."""
    return isinstance(distiller, X3kdConfig) and distiller.instances


def sees_owners(distiller: DistillerConfig) -> bool:
    """Whether a distiller needs to know which object each depth label belongs to (`DataConfig.depth_instance`)."""
    return isinstance(distiller, TigBevConfig) and distiller.inner_depth
