"""The ablations of the paper, as changes to a DualDistill configuration; the same for every family."""

from dualdistill.distill.dualdistill import DualDistillConfig

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
    "head-only": (
        "MFD before the head only, with CRD",
        DualDistillConfig(student_stages=(), teacher_stages=()),
    ),
    "ground-truth": ("CRD taught by annotations", DualDistillConfig(crd_labels="ground_truth")),
    "temperature-1.0": ("CRD labels at temperature 1.0", DualDistillConfig(crd_temperature=1.0)),
    "temperature-0.5": ("CRD labels at temperature 0.5", DualDistillConfig(crd_temperature=0.5)),
}
"""Suffix of the recipe: what it is, and the distiller. The paper's CRD labels are the teacher's at temperature 0.1."""


def named(method: str, suffix: str) -> str:
    """Name of a variant: method and suffix joined by a hyphen, the bare method for the paper's own setting."""
    return f"{method}-{suffix}" if suffix else method
