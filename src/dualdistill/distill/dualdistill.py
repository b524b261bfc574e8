"""DualDistill: a camera student learns a LiDAR teacher's features (MFD, aligned by AOA) and responses (CRD).

Source: DualDistill, BMVC 2025; docs/methods/dualdistill.md. The encoder levels are aligned by AOA,
the map before the head by a 1x1 convolution, whose result feeds both MFD and CRD.

Differs from the released code in the orthogonal projector (see `orthogonal`; "aoa-released" is the released
one), in the test points of the masks (see `regions`) and in how pseudo boxes are ranked (see `crd`).
"""

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn

from dualdistill.distill.align import Alignment, PositionInit, neck_aligner, no_weight_decay, stage_aligner
from dualdistill.distill.crd import CrdLabels, HeadCriterion, cross_head_losses, response_weights
from dualdistill.distill.mfd import FeatureMimic, RegionConfig, mimic_weights
from dualdistill.distill.orthogonal import SemiOrthogonal
from dualdistill.distill.shapes import BevShapes, Shape
from dualdistill.structures import BevOutput, Losses, Targets

NECK = "neck"
"""Name of the level before the head."""


@dataclass(frozen=True, kw_only=True)
class DualDistillConfig:
    """Knobs of `DualDistill`; the defaults are the released settings, save what the module docstring names.

    An option that the others leave without effect is an error.
    """

    mfd: bool = True
    """Feature distillation."""
    crd: bool = True
    """Response distillation."""

    student_stages: tuple[int, ...] = (1, 2)
    """Encoder stages of the student (0 is the finest) that learn, each from the teacher's at the same place
    of …"""
    teacher_stages: tuple[int, ...] = (1, 2)
    """… these. The level is called stage<student's>. The level "neck" is always there."""
    alignment: Alignment = "aoa"
    """Of the encoder levels."""
    attention_heads: int = 8
    position_init: PositionInit = "zeros"
    attention_residual: bool = False
    """Add the student's map to what was attended: a remedy, should the encoder levels not learn."""

    regions: RegionConfig = field(default_factory=RegionConfig)
    false_positive_levels: tuple[str, ...] = (NECK,)
    """Levels at which the teacher's false positives are a region of their own; elsewhere they are
    background."""
    foreground_weight: float = 6e-3
    background_weight: float = 4e-2
    false_positive_weight: float = 6e-2
    spatial_weight: float = 2.5e-3

    crd_labels: CrdLabels = "teacher"
    crd_temperature: float = 0.1
    """A score threshold in disguise: with the teacher's 0.1, boxes above a probability of 0.445 are
    taught."""
    crd_heatmap_weight: float = 1.0
    crd_box_weight: float = 0.25
    crd_velocity_weight: float = 0.2
    """On top of `crd_box_weight`, as the teacher was trained."""

    def __post_init__(self) -> None:
        if not (self.mfd or self.crd):
            raise ValueError("mfd and crd are both off: nothing to distil; leave the distiller out")
        if len(self.student_stages) != len(self.teacher_stages) or len({*self.student_stages}) != len(self.levels) - 1:
            raise ValueError(
                "student_stages and teacher_stages must pair up, each student stage once, "
                f"got {self.student_stages} and {self.teacher_stages}"
            )
        if unknown := {*self.false_positive_levels} - {*self.levels}:
            raise ValueError(f"false_positive_levels must be among {self.levels}, got {sorted(unknown)}")
        if self.crd_temperature <= 0:
            raise ValueError(f"crd_temperature must be positive, got {self.crd_temperature}")
        if self.attention_heads < 1:
            raise ValueError(f"attention_heads must be at least 1, got {self.attention_heads}")
        for each in fields(self):
            if each.name.endswith("_weight") and getattr(self, each.name) < 0:
                raise ValueError(f"{each.name} must not be negative, got {getattr(self, each.name)}")
        self._reject_options_without_effect()

    def _reject_options_without_effect(self) -> None:
        alignment = {"alignment", "attention_heads", "position_init", "attention_residual"}
        false_positive = {"false_positive_weight"}
        crd = {each.name for each in fields(self) if each.name.startswith("crd_")}
        mfd = {each.name for each in fields(self)} - crd - {"mfd", "crd"}
        idle: dict[str, set[str]] = {}
        if not self.crd:
            idle["crd is off"] = crd
        if self.crd_labels == "ground_truth":
            idle["crd_labels are the annotations"] = {"crd_temperature"}
        if not self.mfd:
            idle["mfd is off"] = mfd
        if not self.student_stages:
            idle["no encoder stage is distilled"] = alignment
        if self.alignment in ("orthogonal", "upsample-conv"):
            idle[f'alignment "{self.alignment}" attends to nothing'] = alignment - {"alignment"}
        if not self.false_positive_levels:
            idle["there are no false_positive_levels"] = false_positive
            for name in ("channel_attention", "channel_temperature", "truth_threshold", "teacher_threshold"):
                if getattr(self.regions, name) != getattr(RegionConfig, name):
                    raise ValueError(f"regions.{name} has no effect, since there are no false_positive_levels")
        default = {each.name: each.default for each in fields(self)} | {"regions": RegionConfig()}
        for reason, names in idle.items():
            for name in sorted(names):
                if getattr(self, name) != default[name]:
                    raise ValueError(f"{name} has no effect, since {reason}: leave it out")
        if self.alignment == "aoa-released" and (self.position_init != "zeros" or self.attention_residual):
            raise ValueError(
                'alignment "aoa-released" knows no remedies: leave out position_init and attention_residual'
            )

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels of feature distillation."""
        return (*(f"stage{stage}" for stage in self.student_stages), NECK)

    @property
    def reads(self) -> tuple[str, ...]:
        """Maps of the teacher that are looked at; a teacher cache keeps no others."""
        return (*(f"stage{stage}" for stage in self.teacher_stages if self.mfd), NECK)

    @property
    def weights(self) -> dict[str, float]:
        """Of every loss by name."""
        weights: dict[str, float] = {}
        if self.mfd:
            mfd = mimic_weights(
                self.levels,
                self.false_positive_levels,
                foreground=self.foreground_weight,
                background=self.background_weight,
                false_positive=self.false_positive_weight,
                spatial=self.spatial_weight,
            )
            weights |= {f"mfd/{name}": weight for name, weight in mfd.items()}
        if self.crd:
            crd = response_weights(
                heatmap=self.crd_heatmap_weight, box=self.crd_box_weight, velocity=self.crd_velocity_weight
            )
            weights |= {f"crd/{name}": weight for name, weight in crd.items()}
        return weights

    def build(self, *, teacher: BevShapes, student: BevShapes, judge: HeadCriterion | None = None) -> "DualDistill":
        """The distiller for detectors with maps of these shapes.

        Args:
            judge: The teacher's; CRD needs it.

        Raises:
            ValueError: if the shapes do not fit each other or this config, or CRD lacks a judge.
        """
        return DualDistill(self, teacher, student, judge)


class DualDistill(nn.Module):
    """Losses "mfd/<level>/<term>" and "crd/<response>"; owns the alignment and nothing of teacher or
    student."""

    def __init__(
        self,
        config: DualDistillConfig,
        teacher: BevShapes,
        student: BevShapes,
        judge: HeadCriterion | None = None,
    ):
        super().__init__()
        if teacher.extent != student.extent:
            raise ValueError(f"teacher and student must see one rectangle, got {teacher.extent} and {student.extent} m")
        if config.crd and judge is None:
            raise ValueError("crd asks the teacher's judge: pass it to build, or switch crd off")
        if isinstance(judge, nn.Module):
            raise ValueError("the judge must not be a module, or the distiller would own (train, save) the teacher")
        self.config = config
        self.judge = judge
        self.align = nn.ModuleDict({NECK: neck_aligner(student.neck, teacher.neck)})
        self.mimic = None
        if not config.mfd:
            return
        grids = {}
        for level, (there, here) in _stage_shapes(config, teacher, student).items():
            self.align[level] = stage_aligner(
                config.alignment,
                here,
                there,
                heads=config.attention_heads,
                position_init=config.position_init,
                residual=config.attention_residual,
            )
            grids[level] = teacher.grid(there)
        grids[NECK] = teacher.grid(teacher.neck)
        self.mimic = FeatureMimic(grids, config.false_positive_levels, config.regions)

    def forward(self, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses:
        """All in float32, whatever precision the detectors ran in: squares and masks do not survive half
        precision."""
        with torch.autocast(student.neck.device.type, enabled=False):
            learnt = self._maps(student, self.config.student_stages)
            aligned = {level: align(learnt[level]) for level, align in self.align.items()}
            losses: Losses = {}
            if self.mimic is not None:
                taught = {n: m.detach() for n, m in self._maps(teacher, self.config.teacher_stages).items()}
                mfd = self.mimic(taught, aligned, teacher.predictions, targets)
                losses |= {f"mfd/{name}": loss for name, loss in mfd.items()}
            if self.config.crd:
                assert self.judge is not None
                crd = cross_head_losses(
                    teacher,
                    aligned[NECK],
                    targets,
                    self.judge,
                    labels=self.config.crd_labels,
                    temperature=self.config.crd_temperature,
                )
                losses |= {f"crd/{name}": loss for name, loss in crd.items()}
        return losses

    def _maps(self, output: BevOutput, stages: tuple[int, ...]) -> dict[str, Tensor]:
        """Float32 maps of a detector by level name."""
        maps = (*(output.stages[stage] for stage in stages), output.neck)
        return {level: m.float() for level, m in zip(self.config.levels, maps, strict=True)}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay must spare. None "as released", which is how its projector
        dies."""
        return set() if self.config.alignment == "aoa-released" else no_weight_decay(self)

    def diagnostics(self) -> dict[str, float]:
        """Figures to log and be alarmed by: "<level>/orthogonality_error" (0 is right; above 1e-4 is not) and
        "<level>/projector_max" (0 is a dead projector: nothing passes, nor does its gradient)."""
        figures = {}
        for level, align in self.align.items():
            projector = getattr(align, "projector", None)
            if isinstance(projector, SemiOrthogonal):
                figures[f"{level}/orthogonality_error"] = projector.orthogonality_error()
                figures[f"{level}/projector_max"] = projector.largest_entry()
        return figures


def _stage_shapes(config: DualDistillConfig, teacher: BevShapes, student: BevShapes) -> dict[str, tuple[Shape, Shape]]:
    """Teacher's and student's shapes of each encoder level."""
    for who, shapes, stages in (
        ("teacher", teacher, config.teacher_stages),
        ("student", student, config.student_stages),
    ):
        if stages and not 0 <= min(stages) <= max(stages) < len(shapes.stages):
            raise ValueError(f"the {who} has stages 0 to {len(shapes.stages) - 1}, the config wants {stages}")
    return {
        level: (teacher.stages[there], student.stages[here])
        for level, there, here in zip(config.levels, config.teacher_stages, config.student_stages, strict=False)
    }
