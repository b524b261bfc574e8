"""DistillBEV: a camera student learns the features of a LiDAR teacher, weighted region by region.

Source: DistillBEV, ICCV 2023; docs/methods/distillbev.md. Two encoder levels are brought to the teacher's shape
by upsampling and three convolutions, the map before the head by one. The loss is `FeatureMimic`, line for line the
one that DualDistill took over: true positives and misses (cells in a box, whatever the teacher says of them), false
positives of the teacher, and the rest, scaled by the area of the object or the number of cells, attended to by both
networks.

Differs from the released code in the test points of the masks (see `regions`). Its other adapters, sources of false
positives and scales, which no published run uses, do not exist here.
"""

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn

from dualdistill.distill.align import neck_aligner, no_weight_decay, stage_aligner
from dualdistill.distill.crd import HeadCriterion
from dualdistill.distill.mfd import FeatureMimic, RegionConfig, mimic_weights
from dualdistill.distill.shapes import BevShapes, Shape
from dualdistill.structures import BevOutput, Losses, Targets

NECK = "neck"
"""Name of the level before the head."""


@dataclass(frozen=True, kw_only=True)
class DistillBevConfig:
    """Knobs of `DistillBev`; the defaults are the released scripts', save the test points of the masks.

    An option that the others leave without effect is an error.
    """

    student_stages: tuple[int, ...] = (1, 2)
    """Encoder stages of the student (0 is the finest, and hurts) that learn, each from the teacher's at the same
    place of …"""
    teacher_stages: tuple[int, ...] = (1, 2)
    """… these. The level is called stage<student's>. The level "neck" is always there."""
    regions: RegionConfig = field(default_factory=RegionConfig)
    false_positive_levels: tuple[str, ...] = (NECK,)
    """Levels at which the teacher's false positives are a region of their own; elsewhere they are background."""
    foreground_weight: float = 6e-3
    background_weight: float = 4e-2
    false_positive_weight: float = 6e-2
    """Ten times the foreground's; the paper's supplement says twenty
    (docs/methods/distillbev.md#weight-of-false-positives)."""
    spatial_weight: float = 2.5e-3

    def __post_init__(self) -> None:
        if len(self.student_stages) != len(self.teacher_stages) or len({*self.student_stages}) != len(self.levels) - 1:
            raise ValueError(
                "student_stages and teacher_stages must pair up, each student stage once, "
                f"got {self.student_stages} and {self.teacher_stages}"
            )
        if unknown := {*self.false_positive_levels} - {*self.levels}:
            raise ValueError(f"false_positive_levels must be among {self.levels}, got {sorted(unknown)}")
        for each in fields(self):
            if each.name.endswith("_weight") and getattr(self, each.name) < 0:
                raise ValueError(f"{each.name} must not be negative, got {getattr(self, each.name)}")
        if not self.false_positive_levels:
            self._reject_options_of_false_positives()

    def _reject_options_of_false_positives(self) -> None:
        idle = {"false_positive_weight": self.false_positive_weight != type(self).false_positive_weight}
        for name in ("channel_attention", "channel_temperature", "truth_threshold", "teacher_threshold"):
            idle[f"regions.{name}"] = getattr(self.regions, name) != getattr(RegionConfig, name)
        for name, changed in idle.items():
            if changed:
                raise ValueError(f"{name} has no effect, since there are no false_positive_levels: leave it out")

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels of feature distillation."""
        return (*(f"stage{stage}" for stage in self.student_stages), NECK)

    @property
    def reads(self) -> tuple[str, ...]:
        """Maps of the teacher that are looked at; a teacher cache keeps no others."""
        return (*(f"stage{stage}" for stage in self.teacher_stages), NECK)

    @property
    def weights(self) -> dict[str, float]:
        """Of every loss by name."""
        weights = mimic_weights(
            self.levels,
            self.false_positive_levels,
            foreground=self.foreground_weight,
            background=self.background_weight,
            false_positive=self.false_positive_weight,
            spatial=self.spatial_weight,
        )
        return {f"mfd/{name}": weight for name, weight in weights.items()}

    def build(self, *, teacher: BevShapes, student: BevShapes, judge: HeadCriterion | None = None) -> "DistillBev":
        """The distiller for detectors with maps of these shapes.

        Args:
            judge: Not asked: DistillBEV distils no responses.

        Raises:
            ValueError: if the shapes do not fit each other or this config.
        """
        return DistillBev(self, teacher, student)


class DistillBev(nn.Module):
    """Losses "mfd/<level>/<term>", named as DualDistill's so that logs compare; owns the adapters and nothing of
    teacher or student."""

    def __init__(self, config: DistillBevConfig, teacher: BevShapes, student: BevShapes):
        super().__init__()
        if teacher.extent != student.extent:
            raise ValueError(f"teacher and student must see one rectangle, got {teacher.extent} and {student.extent} m")
        self.config = config
        there, here = _shapes("teacher", config, teacher), _shapes("student", config, student)
        self.align = nn.ModuleDict({level: _adapter(level, here[level], there[level]) for level in config.levels})
        grids = {level: teacher.grid(there[level]) for level in config.levels}
        self.mimic = FeatureMimic(grids, config.false_positive_levels, config.regions)

    def forward(self, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses:
        """All in float32, whatever precision the detectors ran in."""
        with torch.autocast(student.neck.device.type, enabled=False):
            learnt = self._maps(student, self.config.student_stages)
            taught = {level: m.detach() for level, m in self._maps(teacher, self.config.teacher_stages).items()}
            aligned = {level: align(learnt[level]) for level, align in self.align.items()}
            losses = self.mimic(taught, aligned, teacher.predictions, targets)
        return {f"mfd/{name}": loss for name, loss in losses.items()}

    def _maps(self, output: BevOutput, stages: tuple[int, ...]) -> dict[str, Tensor]:
        """Float32 maps of a detector by level name."""
        maps = (*(output.stages[stage] for stage in stages), output.neck)
        return {level: m.float() for level, m in zip(self.config.levels, maps, strict=True)}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay must spare."""
        return no_weight_decay(self)


def _adapter(level: str, student: Shape, teacher: Shape) -> nn.Module:
    """Of one level: a 1x1 convolution before the head, upsampling and three of them elsewhere."""
    return neck_aligner(student, teacher) if level == NECK else stage_aligner("upsample-conv", student, teacher)


def _shapes(who: str, config: DistillBevConfig, shapes: BevShapes) -> dict[str, Shape]:
    """Shapes of a detector's maps by level name."""
    stages = config.teacher_stages if who == "teacher" else config.student_stages
    if stages and not 0 <= min(stages) <= max(stages) < len(shapes.stages):
        raise ValueError(f"the {who} has stages 0 to {len(shapes.stages) - 1}, the config wants {stages}")
    return dict(zip(config.levels, (*(shapes.stages[stage] for stage in stages), shapes.neck), strict=True))
