"""The distillers of the comparison and the ablations of the paper; the same for every family."""

from typing import Literal

from dualdistill.distill.distillbev import DistillBevConfig
from dualdistill.distill.dualdistill import DualDistillConfig
from dualdistill.distill.tig_bev import TigBevConfig
from dualdistill.distill.x3kd import X3kdConfig
from dualdistill.recipes.experiment import DistillerConfig

Teacher = Literal["centerpoint", "mvp"]
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
}
"""Suffix of a DualDistill recipe: what it is, and the distiller. The paper's CRD labels are the teacher's at 0.1."""

RIVALS: dict[str, tuple[str, DistillerConfig]] = {
    "distillbev": ("DistillBEV: balanced feature imitation at three levels", DistillBevConfig()),
    "tigbev": ("TiG-BEV: inner depth and inner features of objects", TigBevConfig()),
    "x3kd": ("X3KD-style, after the paper: no code is public, details are assumed", X3kdConfig()),
}
"""Other methods on the same student, teacher and data."""


def taught_by(teacher: Teacher) -> dict[str, tuple[str, DistillerConfig]]:
    """Name of every distilled recipe under this teacher, such as "dualdistill-mvp-no-crd", and its distiller."""
    rows: dict[str, tuple[str, DistillerConfig]] = {
        f"dualdistill-{teacher}" + (f"-{suffix}" if suffix else ""): row for suffix, row in ABLATIONS.items()
    }
    return rows | {f"{method}-{teacher}": row for method, row in RIVALS.items()}


def sees_owners(distiller: DistillerConfig) -> bool:
    """Whether a distiller needs to know which object each depth label belongs to (`DataConfig.depth_owner`)."""
    return isinstance(distiller, TigBevConfig) and distiller.inner_depth
