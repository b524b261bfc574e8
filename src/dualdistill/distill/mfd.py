"""Multi-scale feature distillation with adaptive region weighting (MFD): squared differences, weighted cell by cell.

Source: docs/methods/dualdistill.md#feature-distillation.
The loss is DistillBEV's (docs/methods/distillbev.md#losses), which shares this module.

Differs from the released code in the test point of a cell, see `regions`. The epoch gates, Gaussian masks,
context rings and affinity terms that the released code switches off do not exist here.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dualdistill.distill.regions import Foreground, TestPoint, false_positives, foreground, split_regions
from dualdistill.distill.shapes import BevShapes, Shape
from dualdistill.distill.terms import attended_square, channel_attention, compare_maps, spatial_attention
from dualdistill.geometry.grid import BevGrid
from dualdistill.settings import Natural, NonNegative, Positive, PositiveShare, checked
from dualdistill.structures import BevOutput, HeadOutput, Losses, Targets

NECK = "neck"
"""Name of the level before the detection head."""


@dataclass(frozen=True, kw_only=True)
@checked
class RegionConfig:
    """How the cells of a map are separated and weighted; the defaults are the released settings, save `test_point`."""

    relative: bool = False
    """Divide the squared differences of a level by the teacher's mean square on object cells, weighted as they are: a
    student whose map is zero then has the same loss on objects under every teacher, however its attention peaks (not
    in the paper)."""
    test_point: TestPoint = "center"
    """Point of a cell that decides whether it lies in a box; "corner" (the lower one) is the released code's half-cell
    shift."""
    spatial_temperature: Positive = 0.5
    """Temperature of the softmax over cells; lower is peakier."""
    student_attention: NonNegative = 1.0
    """Weight of the student's own spatial attention in its mean with the teacher's, of weight 1."""


@dataclass(frozen=True, kw_only=True)
@checked
class FalsePositiveConfig:
    """The teacher's false positives as a region of their own; the defaults are the released settings."""

    levels: tuple[str, ...] = (NECK,)
    """Levels with this region; elsewhere its cells are background."""
    weight: NonNegative = 6e-2
    """Ten times the foreground's; the supplement of DistillBEV gives twenty
    (docs/methods/distillbev.md#weight-of-false-positives)."""
    truth_threshold: PositiveShare = 0.1
    """A false positive needs annotated heat maps below this ..."""
    teacher_threshold: PositiveShare = 0.1
    """... and a probability of the teacher above this."""
    channel_temperature: Positive | None = 0.5
    """Temperature of the teacher's channel attention, which weights these cells too; None for none."""

    def __post_init__(self) -> None:
        if not self.levels:
            raise ValueError("false positives need a level; for none set false_positives to none")


@dataclass(frozen=True, kw_only=True)
@checked
class MimicConfig:
    """Settings of a `FeatureMimic`: paired levels, regions and loss weights, the same at every level."""

    student_stages: tuple[Natural, ...] = (1, 2)
    """Encoder stages of the student (0 is the finest) that are distilled. Their levels are called stage<number>; the
    level "neck" is always there."""
    teacher_stages: tuple[Natural, ...] = (1, 2)
    """Stage of the teacher that each of `student_stages` imitates."""
    regions: RegionConfig = field(default_factory=RegionConfig)
    false_positives: FalsePositiveConfig | None = field(default_factory=FalsePositiveConfig)
    """None: they are background."""
    foreground_weight: NonNegative = 6e-3
    background_weight: NonNegative = 4e-2
    spatial_weight: NonNegative = 2.5e-3

    def __post_init__(self) -> None:
        if len(self.student_stages) != len(self.teacher_stages) or len({*self.student_stages}) != len(self.levels) - 1:
            raise ValueError(
                "student_stages and teacher_stages must pair up, each student stage once, "
                f"got {self.student_stages} and {self.teacher_stages}"
            )
        if self.false_positives and (unknown := {*self.false_positives.levels} - {*self.levels}):
            raise ValueError(f"false_positives.levels must be among {self.levels}, got {sorted(unknown)}")

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the distilled levels."""
        return (*(f"stage{stage}" for stage in self.student_stages), NECK)

    @property
    def teacher_maps(self) -> tuple[str, ...]:
        """Names of the teacher's maps that are imitated."""
        return (*(f"stage{stage}" for stage in self.teacher_stages), NECK)

    @property
    def mimic_weights(self) -> dict[str, float]:
        """Weight of every loss of a `FeatureMimic` by name."""
        terms = {
            "foreground": self.foreground_weight,
            "background": self.background_weight,
            "spatial": self.spatial_weight,
        }
        weights = {f"{level}/{term}": weight for level in self.levels for term, weight in terms.items()}
        if self.false_positives:
            weights |= {f"{level}/false_positive": self.false_positives.weight for level in self.false_positives.levels}
        return weights

    def shapes(self, teacher: BevShapes, student: BevShapes) -> dict[str, tuple[Shape, Shape]]:
        """Shapes of the teacher's and the student's map of each level. Raises ValueError for a stage that a detector
        does not have."""
        sides = []
        for who, maps, stages in (("teacher", teacher, self.teacher_stages), ("student", student, self.student_stages)):
            if stages and not 0 <= min(stages) <= max(stages) < len(maps.stages):
                raise ValueError(f"the {who} has stages 0 to {len(maps.stages) - 1}, the config has {stages}")
            sides.append((*(maps.stages[stage] for stage in stages), maps.neck))
        return dict(zip(self.levels, zip(*sides, strict=True), strict=True))

    def maps(self, output: BevOutput, stages: tuple[int, ...]) -> dict[str, Float[Tensor, "batch _ _ _"]]:
        """Float32 maps of a detector by level; `stages` are its own side of the pairs."""
        maps = (*(output.stages[stage] for stage in stages), output.neck)
        return {level: m.float() for level, m in zip(self.levels, maps, strict=True)}

    def mimic(self, teacher: BevShapes) -> "FeatureMimic":
        """The losses on the grids of the teacher's maps."""
        stages = (*(teacher.stages[stage] for stage in self.teacher_stages), teacher.neck)
        grids = {level: teacher.grid(shape) for level, shape in zip(self.levels, stages, strict=True)}
        return FeatureMimic(grids, self.regions, self.false_positives)


class LevelMimic(nn.Module):
    """Losses between one aligned map and the teacher's, region by region, and between their channel means."""

    def __init__(self, config: RegionConfig, channel_temperature: float | None = None):
        super().__init__()
        self.config = config
        self.channel_temperature = channel_temperature
        self.spatial = nn.Conv2d(1, 1, 3, padding=1)
        """Applied to the student's channel mean, which need not equal the teacher's cell by cell."""

    def forward(
        self,
        teacher: Float[Tensor, "batch chan y x"],
        aligned: Float[Tensor, "batch chan y x"],
        foreground: Foreground,
        false_positive: Bool[Tensor, "batch 1 y x"] | None,
    ) -> Losses:
        """Losses "foreground", "background", "spatial" and, unless its mask is None, "false_positive"."""
        config = self.config
        weights = split_regions(foreground, false_positive)
        theirs, ours = (spatial_attention(features, config.spatial_temperature) for features in (teacher, aligned))
        attention = (theirs + config.student_attention * ours) / (1 + config.student_attention)
        channels = dict.fromkeys(weights, torch.ones_like(teacher[:, :, 0, 0]))
        if false_positive is not None and self.channel_temperature is not None:
            channels["false_positive"] = channel_attention(teacher, self.channel_temperature)[:, :, 0, 0]
        squares, mean = compare_maps(
            aligned,
            teacher,
            torch.cat([weight * attention for weight in weights.values()], dim=1),
            torch.stack([*channels.values()], dim=1),
        )
        if config.relative:
            squares = squares / attended_square(teacher, weights["foreground"], attention)
        losses = dict(zip(weights, squares.unbind(), strict=True))
        apart = (teacher.mean(1, keepdim=True) - self.spatial(mean)).abs()
        return losses | {"spatial": apart.sum() / len(apart)}  # mean over the batch


class FeatureMimic(nn.Module):
    """MFD losses over several levels, named by the caller."""

    def __init__(self, grids: dict[str, BevGrid], config: RegionConfig, false_positives: FalsePositiveConfig | None):
        """Args: `grids` has the grid of the maps of each level."""
        super().__init__()
        self.config = config
        self.false_positives = false_positives
        self.grids = grids
        temperature = false_positives.channel_temperature if false_positives else None
        self.levels = nn.ModuleDict({name: LevelMimic(config, temperature) for name in grids})

    def forward(
        self,
        teacher: dict[str, Float[Tensor, "batch _ _ _"]],
        aligned: dict[str, Float[Tensor, "batch _ _ _"]],
        predictions: HeadOutput,
        targets: Targets,
    ) -> Losses:
        """Losses "<level>/<term>".

        Args:
            teacher: Float32 maps by level, without gradient.
            aligned: The student's, in the same shapes.
            predictions: The teacher's, logits.
        """
        objects = {grid: foreground(targets.boxes, grid, self.config.test_point) for grid in {*self.grids.values()}}
        losses: Losses = {}
        for name, mimic in self.levels.items():
            here = objects[self.grids[name]]
            unfounded = None
            if self.false_positives and name in self.false_positives.levels:
                unfounded = false_positives(
                    targets.heatmap.float(),
                    predictions.heatmap.float(),
                    here.mask,
                    truth_threshold=self.false_positives.truth_threshold,
                    teacher_threshold=self.false_positives.teacher_threshold,
                )
            terms = mimic(teacher[name], aligned[name], here, unfounded)
            losses |= {f"{name}/{term}": loss for term, loss in terms.items()}
        return losses
