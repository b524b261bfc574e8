"""Multi-scale feature distillation with adaptive region weighting (MFD): squared differences, weighted cell by cell.

Source: docs/methods/dualdistill.md#feature-distillation; the loss is DistillBEV's, which shares this module
(docs/methods/distillbev.md#losses). Regions are objects, the teacher's false positives and the rest
(docs/methods/dualdistill.md#foreground-mask, docs/methods/dualdistill.md#false-positives); they have no gradient.

Differs from the released code in the test point of a cell: its centre, where the released code takes the lower corner
and so shifts every mask by half a cell; `test_point="corner"` is the released one, tests/parity holds both. The epoch
gates, Gaussian masks, context rings and affinity terms that the released code switches off do not exist here.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dualdistill.distill.shapes import BevShapes
from dualdistill.distill.terms import attended_square, channel_attention, compare_maps, spatial_attention
from dualdistill.geometry.boxes import footprints
from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.focal import probability
from dualdistill.ops.integers import constant
from dualdistill.settings import Natural, NonNegative, Positive, PositiveShare, checked
from dualdistill.structures import BevOutput, Boxes, HeadOutput, Losses, Targets

NECK = "neck"
"""Name of the level before the detection head."""

TestPoint = Literal["center", "corner"]


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
    def weights(self) -> dict[str, float]:
        """Weight of every loss by name."""
        terms = ("foreground", "background", "spatial")
        weights = {f"mfd/{level}/{term}": getattr(self, f"{term}_weight") for level in self.levels for term in terms}
        if self.false_positives:
            own = self.false_positives
            weights |= {f"mfd/{level}/false_positive": own.weight for level in own.levels}
        return weights

    def maps(self, who: Literal["teacher", "student"], of: BevShapes | BevOutput) -> dict[str, Any]:
        """Maps of a detector by level, or their shapes. Raises ValueError for a stage that it does not have."""
        stages = self.teacher_stages if who == "teacher" else self.student_stages
        if stages and not 0 <= min(stages) <= max(stages) < len(of.stages):
            raise ValueError(f"the {who} has stages 0 to {len(of.stages) - 1}, the config has {stages}")
        return dict(zip(self.levels, (*(of.stages[stage] for stage in stages), of.neck), strict=True))

    def mimic(self, teacher: BevShapes) -> "FeatureMimic":
        """The losses on the grids of the teacher's maps."""
        grids = {level: teacher.grid(shape) for level, shape in self.maps("teacher", teacher).items()}
        return FeatureMimic(grids, self.regions, self.false_positives)


@dataclass(frozen=True, kw_only=True)
class Foreground:
    """The cells of annotated objects."""

    mask: Bool[Tensor, "batch 1 y x"]
    """Cells whose test point lies in the footprint of a box."""
    scale: Float[Tensor, "batch 1 y x"]
    """1 / sqrt(area of the box in cells), so that an object's total weight grows like the root of its area;
    not clipped: above 1 for boxes smaller than a cell. 0 elsewhere."""


@torch.no_grad()
def foreground(boxes: tuple[Boxes, ...], grid: BevGrid, test_point: TestPoint = "center") -> Foreground:
    """Cells of the boxes of each sample; of several boxes over one cell, the first in the list counts."""
    index = box_indices_of_batch(boxes, grid, test_point)[:, None]
    size = torch.cat([sample.size for sample in boxes])
    scale_of_box = F.pad(grid.cell / (size[:, 0] * size[:, 1]).float().sqrt(), (0, 1))  # -1, no box, selects the 0
    return Foreground(mask=index >= 0, scale=scale_of_box[index])


def box_indices_of_batch(
    boxes: tuple[Boxes, ...], grid: BevGrid, test_point: TestPoint = "center"
) -> Int[Tensor, "batch y x"]:
    """The first box over each cell, counted through the boxes of all samples; -1 for none. Only the cells about each
    box are tested."""
    rectangles = torch.cat([footprints(sample) for sample in boxes]).double()
    device, count, (height, width) = rectangles.device, len(rectangles), grid.shape
    index = torch.full((len(boxes) * height * width + 1,), count, device=device)
    if count:
        counts = constant([len(sample) for sample in boxes], device)
        sample = torch.repeat_interleave(torch.arange(len(boxes), device=device), counts, output_size=count)
        center, size, yaw = rectangles[:, None, :2], rectangles[:, 2:4, None, None], rectangles[:, 4, None, None]
        # One more for the cell that the centre is rounded down to.
        reach = int((rectangles[:, 2:4].norm(dim=1).max() / 2 / grid.cell).ceil()) + 1
        offset = torch.arange(-reach, reach + 1, device=device)[:, None]
        low = constant([grid.x_min, grid.y_min], device, torch.double)
        cell = ((center - low) / grid.cell).floor().long() + offset  # boxes window 2, column and row
        on_map = (cell >= 0) & (cell < constant([width, height], device))
        dx, dy = (low + (cell + (0.5 if test_point == "center" else 0.0)) * grid.cell - center).unbind(dim=2)
        dx, dy = dx[:, None, :], dy[:, :, None]
        inside = on_map[:, None, :, 0] & on_map[:, :, None, 1]  # boxes row column
        inside &= (dx * yaw.cos() + dy * yaw.sin()).abs() <= size[:, 0] / 2
        inside &= (dy * yaw.cos() - dx * yaw.sin()).abs() <= size[:, 1] / 2
        place = (sample[:, None, None] * height + cell[:, :, None, 1]) * width + cell[:, None, :, 0]
        place = torch.where(inside, place, len(index) - 1)
        claim = torch.arange(count, device=device)[:, None, None].expand_as(place)
        index = index.scatter_reduce(0, place.flatten(), claim.flatten(), "amin")  # the first box wins
    index = index[:-1].view(len(boxes), height, width)
    return torch.where(index == count, -1, index)


@torch.no_grad()
def false_positives(
    heatmap: Float[Tensor, "batch klass _ _"],
    teacher_logits: Float[Tensor, "batch klass _ _"],
    foreground: Bool[Tensor, "batch 1 y x"],
    truth_threshold: float = 0.1,
    teacher_threshold: float = 0.1,
) -> Bool[Tensor, "batch 1 y x"]:
    """Cells where the teacher predicts an object, whatever class, and the annotations have none. `heatmap`: training
    targets, in [0, 1]."""
    maps = heatmap, probability(teacher_logits)
    truth, seen = (_strongest(m, foreground.shape[-2:]) for m in maps)
    return (truth < truth_threshold) & (seen > teacher_threshold) & ~foreground


def _strongest(heatmap: Float[Tensor, "batch klass _ _"], size: torch.Size) -> Float[Tensor, "batch 1 y x"]:
    """Largest value of any class, on a map of another size: pooled by maximum, or repeated."""
    strongest = heatmap.amax(dim=1, keepdim=True)
    if strongest.shape[-1] > size[-1]:
        return F.adaptive_max_pool2d(strongest, list(size))
    return F.interpolate(strongest, list(size)) if strongest.shape[-2:] != size else strongest


@torch.no_grad()
def split_regions(
    foreground: Foreground, false_positive: Bool[Tensor, "batch 1 y x"] | None = None
) -> dict[str, Float[Tensor, "batch 1 y x"]]:
    """Weight of each cell in disjoint regions that cover the map, 0 outside a region: "foreground", "background" (sums
    to 1) and, unless its mask is None, "false_positive" (sums to 1, to 0 where there are none).

    As in docs/methods/dualdistill.md#region-weights: M_fg S, M_tn S and M_fp / N_fp, where S = max(scale, 1 / N_tn).
    `false_positive` must not overlap the foreground.
    """
    background = ~foreground.mask if false_positive is None else ~(foreground.mask | false_positive)
    share = _one_over_count(background)
    weights = {"foreground": torch.maximum(foreground.scale, share) * foreground.mask, "background": share * background}
    if false_positive is not None:
        weights["false_positive"] = _one_over_count(false_positive) * false_positive
    return weights


def _one_over_count(mask: Bool[Tensor, "batch 1 y x"]) -> Float[Tensor, "batch 1 1 1"]:
    """Weight of each cell of a mask whose cells weigh 1 together; 0 for an empty mask."""
    count = mask.sum(dim=(2, 3), keepdim=True)
    return torch.where(count > 0, 1 / count.clamp(min=1), 0.0)


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
    """MFD losses over several levels, named by the caller; `grids` has the grid of the maps of each."""

    def __init__(self, grids: dict[str, BevGrid], config: RegionConfig, false_positives: FalsePositiveConfig | None):
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
        """Losses "mfd/<level>/<term>". `aligned`: the student's maps in the shapes of the teacher's, float32;
        `predictions`: the teacher's, logits."""
        objects = {grid: foreground(targets.boxes, grid, self.config.test_point) for grid in {*self.grids.values()}}
        losses: Losses = {}
        for name, mimic in self.levels.items():
            here, found = objects[self.grids[name]], self.false_positives
            unfounded = None
            if found and name in found.levels:
                maps = targets.heatmap.float(), predictions.heatmap.float()
                unfounded = false_positives(*maps, here.mask, found.truth_threshold, found.teacher_threshold)
            terms = mimic(teacher[name].detach().float(), aligned[name], here, unfounded)
            losses |= {f"mfd/{name}/{term}": loss for term, loss in terms.items()}
        return losses
