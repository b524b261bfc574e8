"""DualDistill: a camera student learns a LiDAR teacher's features (MFD, aligned by AOA) and responses (CRD).

Source: DualDistill, BMVC 2025; docs/methods/dualdistill.md. The encoder levels are aligned by AOA, the map before the
head by a 1x1 convolution, whose result feeds both MFD and CRD: in cross-head response distillation the frozen teacher
head must find the teacher's boxes in the student's map; the student's head is not involved.

Differs from the released code in the orthogonal projector (see `align`; "aoa-released" is the released one), in the
test points of the masks (see `mfd`), and in that pseudo boxes are decoded in float32 and ranked by untempered
scores: there the sharpened scores saturate and tie, so that suppression among confident boxes is arbitrary
(docs/methods/dualdistill.md#pseudo-boxes).
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dualdistill.distill.align import (
    Alignment,
    PositionInit,
    SemiOrthogonal,
    neck_aligner,
    no_weight_decay,
    stage_aligner,
)
from dualdistill.distill.method import DistillerConfig, DistillerInputs, HeadCriterion, Requires, check_no_effect
from dualdistill.distill.mfd import NECK, MimicConfig
from dualdistill.distill.terms import response_weights
from dualdistill.settings import Few, NonNegative, Positive, checked
from dualdistill.structures import BevOutput, Losses, Targets

CrdLabels = Literal["teacher", "ground_truth"]
"""Boxes to be found: the teacher's confident detections, or (ablation) the annotations."""


@dataclass(frozen=True, kw_only=True)
@checked
class CrdConfig:
    """Settings of response distillation; the defaults are the released ones."""

    labels: CrdLabels = "teacher"
    temperature: Positive = 0.1
    """Sets the score threshold of the teacher's boxes: with its 0.1, boxes above a probability of 0.445 are labels."""
    heatmap_weight: NonNegative = 1.0
    box_weight: NonNegative = 0.25
    velocity_weight: NonNegative = 0.2
    """On top of `box_weight`, as the teacher was trained."""

    def __post_init__(self) -> None:
        if self.labels == "ground_truth":
            check_no_effect(self, "the labels are the annotations", ("temperature",))

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every loss of `cross_head_losses` by name."""
        return response_weights(heatmap=self.heatmap_weight, box=self.box_weight, velocity=self.velocity_weight)


def cross_head_losses(
    teacher: BevOutput,
    aligned_neck: Float[Tensor, "batch chan y x"],
    targets: Targets,
    criterion: HeadCriterion,
    *,
    labels: CrdLabels = "teacher",
    temperature: float = 0.1,
) -> Losses:
    """Losses `RESPONSES` of the teacher's head on the student's aligned map (float32).

    The gradient goes through the frozen head into the map. Pseudo boxes lose their scores: all count alike.
    """
    if labels == "ground_truth":
        boxes = targets.boxes
    else:
        with torch.no_grad():
            found = criterion.pseudo_boxes(teacher.predictions, temperature)
        boxes = tuple(replace(each, score=None) for each in found)
    return criterion.losses_of_features(teacher.head, aligned_neck, boxes)


@dataclass(frozen=True, kw_only=True)
@checked
class MfdConfig(MimicConfig):
    """Settings of feature distillation: those of the losses, and how the encoder levels are aligned before."""

    alignment: Alignment = "aoa"
    attention_heads: Few = 8
    position_init: PositionInit = "zeros"
    attention_residual: bool = False
    """Add the student's map to the attention's output: a remedy, should the encoder levels not learn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        attention = ("attention_heads", "position_init", "attention_residual")
        if not self.student_stages:
            check_no_effect(self, "no encoder stage is distilled", ("alignment", *attention))
        if self.alignment in ("orthogonal", "upsample-conv"):
            check_no_effect(self, f'alignment "{self.alignment}" has no attention', attention)
        if self.alignment == "aoa-released":
            check_no_effect(self, 'alignment "aoa-released" has no remedies', attention[1:])


@dataclass(frozen=True, kw_only=True)
@checked
class DualDistillConfig(DistillerConfig):
    """Settings of `DualDistill`; the defaults are the released ones, save what the module docstring names."""

    mfd: MfdConfig | None = field(default_factory=MfdConfig)
    """Feature distillation; None leaves it out."""
    crd: CrdConfig | None = field(default_factory=CrdConfig)
    """Response distillation; None leaves it out."""

    def __post_init__(self) -> None:
        if self.mfd is None and self.crd is None:
            raise ValueError("mfd and crd are both none: nothing to distil; leave the distiller out")

    @property
    def requires(self) -> Requires:
        return Requires(
            teacher_maps=self.mfd.teacher_maps if self.mfd is not None else (NECK,), criterion=self.crd is not None
        )

    @property
    def weights(self) -> dict[str, float]:
        crd = self.crd.weights if self.crd is not None else {}
        return (self.mfd.weights if self.mfd is not None else {}) | {f"crd/{name}": w for name, w in crd.items()}

    def build(self, inputs: DistillerInputs) -> "DualDistill":
        return DualDistill(self, inputs)


class DualDistill(nn.Module):
    """Losses "mfd/<level>/<term>" and "crd/<response>"; owns the alignment, neither teacher nor student."""

    def __init__(self, config: DualDistillConfig, inputs: DistillerInputs):
        super().__init__()
        if config.crd is not None and inputs.criterion is None:
            raise ValueError("crd needs the teacher's head criterion: pass it to build, or set crd to none")
        self.config = config
        self.criterion = inputs.criterion
        self.align = nn.ModuleDict({NECK: neck_aligner(inputs.student.neck, inputs.teacher.neck)})
        self.mimic = None
        if (mfd := config.mfd) is None:
            return
        there, here = mfd.maps("teacher", inputs.teacher), mfd.maps("student", inputs.student)
        heads, position_init, residual = mfd.attention_heads, mfd.position_init, mfd.attention_residual
        align = partial(stage_aligner, mfd.alignment, heads=heads, position_init=position_init, residual=residual)
        self.align.update({level: align(here[level], there[level]) for level in mfd.levels if level != NECK})
        self.mimic = mfd.mimic(inputs.teacher)

    def forward(self, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses:
        """All in float32, whatever precision the detectors ran in: squares and masks do not survive half precision."""
        mfd, crd = self.config.mfd, self.config.crd
        losses: Losses = {}
        with torch.autocast(student.neck.device.type, enabled=False):
            # The aligned neck feeds both MFD and CRD.
            maps = mfd.maps("student", student) if mfd is not None else {NECK: student.neck}
            aligned = {level: align(maps[level].float()) for level, align in self.align.items()}
            if mfd is not None and self.mimic is not None:
                losses |= self.mimic(mfd.maps("teacher", teacher), aligned, teacher.predictions, targets)
            if crd is not None:
                assert self.criterion is not None
                responses = cross_head_losses(
                    teacher, aligned[NECK], targets, self.criterion, labels=crd.labels, temperature=crd.temperature
                )
                losses |= {f"crd/{name}": loss for name, loss in responses.items()}
        return losses

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters to exempt from weight decay. Empty for the released projector, whose collapse under
        weight decay is part of it."""
        released = self.config.mfd is not None and self.config.mfd.alignment == "aoa-released"
        return set() if released else no_weight_decay(self)

    def diagnostics(self) -> dict[str, float]:
        """Figures that reveal a broken projector: "<level>/orthogonality_error" (0 is right, above 1e-4 is not) and
        "<level>/projector_max" (0: nothing passes, nor does its gradient)."""
        figures = {}
        for level, align in self.align.items():
            projector = getattr(align, "projector", None)
            if isinstance(projector, SemiOrthogonal):
                figures[f"{level}/orthogonality_error"] = projector.orthogonality_error()
                figures[f"{level}/projector_max"] = projector.largest_entry()
        return figures
