"""Multi-scale feature distillation with adaptive region weighting (MFD): squared differences, weighted cell
by cell.

Source: docs/methods/dualdistill.md#feature-distillation.
The loss is DistillBEV's (docs/methods/distillbev.md#losses), which is why it
stands alone.

Differs from the released code in the test point of a cell, see `regions`. The epoch gates, Gaussian masks,
context rings and affinity terms that the released code switches off do not exist here.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dualdistill.distill.regions import Foreground, TestPoint, false_positives, foreground, split_regions
from dualdistill.distill.terms import (
    attended_square,
    channel_attention,
    compare_maps,
    map_difference,
    spatial_attention,
)
from dualdistill.geometry.grid import BevGrid
from dualdistill.structures import HeadOutput, Losses, Targets


@dataclass(frozen=True, kw_only=True)
class RegionConfig:
    """How the cells of a map are told apart and weighted; the defaults are the released settings, save
    `test_point`."""

    relative: bool = False
    """Count the squared differences of a level in units of the teacher's mean square on object cells, weighted as they
    are: a student that says nothing then pays for objects the same under every teacher, however its attention peaks
    (not in the paper)."""
    test_point: TestPoint = "center"
    """Of a cell, when asking whether it lies in a box; "corner" (the lower one) is the released code's
    half-cell shift."""
    spatial_temperature: float = 0.5
    """Of the softmax over cells; lower is peakier."""
    student_attention: float = 1.0
    """Weight of the student's own spatial attention in its mean with the teacher's, of weight 1."""
    channel_attention: bool = True
    """Whether false positives are weighted by the teacher's channel attention too."""
    channel_temperature: float = 0.5
    truth_threshold: float = 0.1
    """A false positive needs annotated heat maps below this …"""
    teacher_threshold: float = 0.1
    """… and a teacher's probability above this."""

    def __post_init__(self) -> None:
        for name in ("spatial_temperature", "channel_temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("truth_threshold", "teacher_threshold"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {getattr(self, name)}")
        if self.student_attention < 0:
            raise ValueError(f"student_attention must not be negative, got {self.student_attention}")
        if not self.channel_attention and self.channel_temperature != RegionConfig.channel_temperature:
            raise ValueError("channel_temperature has no effect without channel_attention: leave it out")


class LevelMimic(nn.Module):
    """Pull one aligned map to the teacher's, region by region, and their channel means together."""

    def __init__(self, config: RegionConfig):
        super().__init__()
        self.config = config
        self.spatial = nn.Conv2d(1, 1, 3, padding=1)
        """On the student's channel mean, which need not look like the teacher's cell by cell."""

    def forward(
        self,
        teacher: Float[Tensor, "batch chan y x"],
        aligned: Float[Tensor, "batch chan y x"],
        foreground: Foreground,
        false_positive: Bool[Tensor, "batch 1 y x"] | None,
    ) -> Losses:
        """Losses "foreground", "background", "spatial" and, unless its mask is None, "false_positive"."""
        config = self.config
        regions = split_regions(foreground, false_positive)
        theirs, ours = (spatial_attention(features, config.spatial_temperature) for features in (teacher, aligned))
        attention = (theirs + config.student_attention * ours) / (1 + config.student_attention)
        weights = {"foreground": regions.foreground, "background": regions.background}
        channels = dict.fromkeys(weights, torch.ones_like(teacher[:, :, 0, 0]))
        if false_positive is not None:
            weights["false_positive"] = regions.false_positive
            channels["false_positive"] = channels["foreground"]
            if config.channel_attention:
                channels["false_positive"] = channel_attention(teacher, config.channel_temperature)[:, :, 0, 0]
        squares, mean = compare_maps(
            aligned,
            teacher,
            torch.cat([weight * attention for weight in weights.values()], dim=1),
            torch.stack([*channels.values()], dim=1),
        )
        if config.relative:
            squares = squares / attended_square(teacher, regions.foreground, attention)
        losses = dict(zip(weights, squares.unbind(), strict=True))
        return losses | {"spatial": map_difference(teacher.mean(1, keepdim=True), self.spatial(mean))}


class FeatureMimic(nn.Module):
    """MFD over several levels; what the levels are called, and how big their maps are, the caller says."""

    def __init__(self, grids: dict[str, BevGrid], false_positive_levels: tuple[str, ...], config: RegionConfig):
        super().__init__()
        self.config = config
        self.grids = grids
        self.false_positive_levels = false_positive_levels
        self.levels = nn.ModuleDict({name: LevelMimic(config) for name in grids})

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
            if name in self.false_positive_levels:
                unfounded = false_positives(
                    targets.heatmap.float(),
                    predictions.heatmap.float(),
                    here.mask,
                    truth_threshold=self.config.truth_threshold,
                    teacher_threshold=self.config.teacher_threshold,
                )
            terms = mimic(teacher[name], aligned[name], here, unfounded)
            losses |= {f"{name}/{term}": loss for term, loss in terms.items()}
        return losses


def mimic_weights(
    levels: tuple[str, ...],
    false_positive_levels: tuple[str, ...],
    *,
    foreground: float,
    background: float,
    false_positive: float,
    spatial: float,
) -> dict[str, float]:
    """Weights of the losses of a `FeatureMimic`, the same at every level."""
    terms = {"foreground": foreground, "background": background, "spatial": spatial}
    weights = {f"{level}/{term}": weight for level in levels for term, weight in terms.items()}
    return weights | {f"{level}/false_positive": false_positive for level in false_positive_levels}
