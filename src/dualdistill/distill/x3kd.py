"""X3KD-style distillation across modalities (features, an adversary, outputs) and tasks (instance segmentation).

Written from a description: X3KD (CVPR 2023) released no code, and the description could be checked only against the
abstract. Results are "X3KD-style"; not one weight or threshold below is known to be the authors'. What was assumed, and
how surely, is listed in docs/methods/x3kd.md#what-was-assumed.
"""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dualdistill.distill.adversary import Discriminator, accuracy, adversarial_loss, reverse_gradient
from dualdistill.distill.align import no_weight_decay
from dualdistill.distill.blocks import ResidualBlock
from dualdistill.distill.crd import HeadCriterion
from dualdistill.distill.instances import InstanceHead, instance_losses
from dualdistill.distill.responses import gaussian_focal, in_students_units, probability, sum_by_task
from dualdistill.distill.shapes import BevShapes, Shape
from dualdistill.distill.terms import balanced_mean
from dualdistill.ops.processes import mean_count
from dualdistill.structures import BevOutput, HeadOutput, Losses, Targets

FeatureLevel = Literal["canvas", "stage0", "neck"]
"""The teacher's map that the student resembles: its pillars, its first stage, or what its head reads. The first two
teach the student's canvas, the last its neck."""
FeatureReduce = Literal["mean", "balanced"]
"""Average over all cells, or of the averages over the teacher's empty cells and over the others."""
Positives = Literal["all", "peak"]
"""Which of the teacher's confident cells are positives: all, or local maxima only."""

PATCH = 8
"""Side in cells of what the discriminator gives one logit for."""


@dataclass(frozen=True, kw_only=True)
class X3kdConfig:
    """Knobs of `X3kd`; all defaults are unverified (docs/methods/x3kd.md#what-was-assumed).
    An option without effect is an error."""

    feature: bool = True
    """X-FD: the student's map resembles the teacher's."""
    adversarial: bool = True
    """X-AT: a discriminator cannot tell them apart."""
    output: bool = True
    """X-OD: the student's head answers as the teacher's."""
    instances: bool = False
    """X-IS: image features know the objects in the image; needs `Targets.instances`."""

    feature_level: FeatureLevel = "stage0"
    feature_reduce: FeatureReduce = "mean"
    refine_channels: int = 256
    """Width of what stands between the student's canvas and the comparison."""
    feature_weight: float = 10.0

    reversal: float = 1.0
    """Strength of the reversed gradient; the discriminator's own is not touched by it."""
    adversarial_weight: float = 10.0

    positive_threshold: float = 0.6
    """Cells of which the teacher is surer than this should be certain."""
    positives: Positives = "all"
    box_threshold: float = 0.1
    """Cells where the teacher is less sure than this of all classes of a task have no box to imitate."""
    output_heatmap_weight: float = 1.0
    output_box_weight: float = 0.25

    instances_weight: float = 1.0

    def __post_init__(self) -> None:
        if not (self.feature or self.adversarial or self.output or self.instances):
            raise ValueError("feature, adversarial, output and instances are all off: nothing to distil")
        for name in ("positive_threshold", "box_threshold"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {getattr(self, name)}")
        for each in fields(self):
            if each.name.endswith("_weight") and getattr(self, each.name) < 0:
                raise ValueError(f"{each.name} must not be negative, got {getattr(self, each.name)}")
        if self.reversal <= 0:
            raise ValueError(f"reversal must be positive, got {self.reversal}; without it switch adversarial off")
        if self.refine_channels < 1:
            raise ValueError(f"refine_channels must be at least 1, got {self.refine_channels}")
        if self.feature_reduce == "balanced" and self.feature_level != "canvas":
            raise ValueError('feature_reduce "balanced" needs feature_level "canvas": no other map has empty cells')
        self._reject_options_without_effect()

    def _reject_options_without_effect(self) -> None:
        idle: dict[str, set[str]] = {}
        if not self.feature:
            idle["feature is off"] = {"feature_weight", "feature_reduce"}
        if not self.adversarial:
            idle["adversarial is off"] = {"adversarial_weight", "reversal"}
        if not self.compares_features:
            idle["neither feature nor adversarial looks at features"] = {"feature_level", "refine_channels"}
        if self.feature_level == "neck":
            idle['feature_level "neck" is not refined'] = {"refine_channels"}
        if not self.output:
            idle["output is off"] = {
                *("positive_threshold", "positives", "box_threshold"),
                *("output_heatmap_weight", "output_box_weight"),
            }
        if not self.instances:
            idle["instances is off"] = {"instances_weight"}
        default = {each.name: each.default for each in fields(self)}
        for reason, names in idle.items():
            for name in sorted(names):
                if getattr(self, name) != default[name]:
                    raise ValueError(f"{name} has no effect, since {reason}: leave it out")

    @property
    def compares_features(self) -> bool:
        return self.feature or self.adversarial

    @property
    def weights(self) -> dict[str, float]:
        """Of every loss by name."""
        weights = {}
        if self.feature:
            weights["xfd"] = self.feature_weight
        if self.adversarial:
            weights["xat"] = self.adversarial_weight
        if self.output:
            weights |= {"xod/heatmap": self.output_heatmap_weight, "xod/box": self.output_box_weight}
        if self.instances:
            weights |= {"xis/class": self.instances_weight, "xis/center": self.instances_weight}
        return weights

    def build(self, *, teacher: BevShapes, student: BevShapes, judge: HeadCriterion | None = None) -> "X3kd":
        """
        Args:
            judge: Not needed: heads are compared cell by cell.

        Raises:
            ValueError: if the shapes do not fit each other or this config.
        """
        return X3kd(self, teacher, student)


class Refinement(nn.Module):
    """Between the student's canvas and the teacher's map: what the comparison may change. Never negative."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            ResidualBlock(hidden),
            nn.Conv2d(hidden, out_channels, 1),
            nn.ReLU(),
        )

    def forward(self, canvas: Float[Tensor, "batch _ y x"]) -> Float[Tensor, "batch chan y x"]:
        return self.layers(canvas)


class X3kd(nn.Module):
    """Losses "xfd", "xat", "xod/heatmap", "xod/box", "xis/class", "xis/center", as far as they are switched on.

    Owns the refinement, the discriminator and the instance head, and nothing of teacher or student.
    """

    def __init__(self, config: X3kdConfig, teacher: BevShapes, student: BevShapes):
        super().__init__()
        if teacher.extent != student.extent:
            raise ValueError(f"teacher and student must see one rectangle, got {teacher.extent} and {student.extent} m")
        if (config.output or config.feature_level == "neck") and teacher.neck[1:] != student.neck[1:]:
            raise ValueError(f"the heads must share one grid, got {teacher.neck[1:]} and {student.neck[1:]} cells")
        self.config = config
        self.refine: nn.Module | None = None
        self.discriminator: Discriminator | None = None
        self.instances: InstanceHead | None = None
        if config.compares_features:
            there, here = _feature_shapes(config.feature_level, teacher, student)
            self.refine = (
                nn.Conv2d(here[0], there[0], 1)
                if config.feature_level == "neck"
                else Refinement(here[0], config.refine_channels, there[0])
            )
            if config.adversarial:
                if min(here[1:]) < PATCH:
                    raise ValueError(f"the discriminator needs at least {PATCH}x{PATCH} cells, got {here[1:]}")
                self.discriminator = Discriminator(there[0])
        if config.instances:
            if student.image is None:
                raise ValueError("instances are found in image features: this student has none")
            self.instances = InstanceHead(student.image[0])
        self._watched: dict[str, Tensor] = {}

    def forward(self, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses:
        """All in float32, whatever precision the detectors ran in.

        Raises:
            ValueError: if instances are to be learnt and the targets have none.
        """
        config = self.config
        losses: Losses = {}
        with torch.autocast(student.neck.device.type, enabled=False):
            if self.refine is not None:
                taught, learnt = self._features(teacher, student)
                if config.feature:
                    losses["xfd"] = feature_loss(learnt, taught, config.feature_reduce)
                    self._watched["xfd/of_nothing"] = taught.abs().mean()
                if self.discriminator is not None:
                    logits = self.discriminator(taught), self.discriminator(reverse_gradient(learnt, config.reversal))
                    losses["xat"] = adversarial_loss(*logits)
                    self._watched["xat/accuracy"] = accuracy(*logits)
            if config.output:
                theirs = in_students_units(teacher.predictions, targets)
                losses["xod/heatmap"] = heatmap_loss(
                    probability(student.predictions.heatmap),
                    pseudo_heatmap(probability(theirs.heatmap), config.positive_threshold, config.positives),
                )
                losses["xod/box"] = box_loss(theirs, student.predictions, config.box_threshold)
            if self.instances is not None:
                if student.camera is None or targets.instances is None:
                    raise ValueError("instances are to be learnt, but there are no image features or no instance maps")
                klass, offset = self.instances(student.camera.features.float())
                found = instance_losses(klass, offset, targets.instances)
                losses |= {f"xis/{name}": loss for name, loss in found.items()}
        return losses

    def _features(self, teacher: BevOutput, student: BevOutput) -> tuple[Tensor, Tensor]:
        """Maps of teacher (without gradient) and student to compare; the teacher's is averaged to the student's
        size."""
        assert self.refine is not None
        if self.config.feature_level == "neck":
            return teacher.neck.detach().float(), self.refine(student.neck.float())
        theirs = teacher.canvas if self.config.feature_level == "canvas" else teacher.stages[0]
        learnt = self.refine(student.canvas.float())
        return F.adaptive_avg_pool2d(theirs.detach().float(), (learnt.shape[-2], learnt.shape[-1])), learnt

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay must spare."""
        return no_weight_decay(self)

    def diagnostics(self) -> dict[str, float]:
        """Of the last batch: "xat/accuracy" of the discriminator (near 1 for long, it teaches nothing; 0.5 from the
        start, it does not learn) and "xfd/of_nothing", the feature loss of a map of zeros, to be stayed below."""
        return {name: float(value) for name, value in self._watched.items()}


def feature_loss(
    learnt: Float[Tensor, "batch chan y x"], taught: Float[Tensor, "batch chan y x"], reduce: FeatureReduce = "mean"
) -> Float[Tensor, ""]:
    """Mean absolute difference, over all cells or half over the teacher's empty ones
    (docs/methods/x3kd.md#feature-distillation)."""
    error = (learnt - taught).abs()
    return error.mean() if reduce == "mean" else balanced_mean(error, (taught != 0).any(dim=1, keepdim=True))


@torch.no_grad()
def pseudo_heatmap(
    teacher: Float[Tensor, "batch klass y x"], threshold: float, positives: Positives = "all"
) -> Float[Tensor, "batch klass y x"]:
    """The teacher's probabilities, exactly 1 where they reach the threshold: a focal loss has its positives there."""
    sure = teacher >= threshold
    if positives == "peak":
        sure &= F.max_pool2d(teacher, 3, stride=1, padding=1) == teacher
    return torch.where(sure, 1.0, teacher)


def heatmap_loss(
    student: Float[Tensor, "batch klass y x"], target: Float[Tensor, "batch klass y x"]
) -> Float[Tensor, ""]:
    """Gaussian focal loss of probabilities, divided by the number of positives in the batch (at least 1)."""
    return gaussian_focal(student, target).sum() / mean_count((target == 1).sum(), at_least=1)


def box_loss(teacher: HeadOutput, student: HeadOutput, threshold: float) -> Float[Tensor, ""]:
    """Smooth L1 of the codes of every cell, mean over codes; mean over cells, weighted by the teacher's mean
    probability over the classes of a task; sum over tasks (docs/methods/x3kd.md#output-distillation).

    Args:
        teacher: In the student's units, without gradient.
        threshold: A cell where no class of the task is this probable has no weight.
    """
    error = F.smooth_l1_loss(student.regression.float(), teacher.regression, reduction="none").mean(dim=2)
    weight = box_weights(probability(teacher.heatmap), threshold)  # batch task y x
    return ((error * weight).sum(dim=(0, 2, 3)) / mean_count(weight.sum(dim=(0, 2, 3)), at_least=1e-4)).sum()


@torch.no_grad()
def box_weights(probability: Float[Tensor, "batch klass y x"], threshold: float) -> Float[Tensor, "batch task y x"]:
    """Mean probability over the classes of each task, 0 where none of them reaches the threshold."""
    classes = probability.movedim(1, -1)  # batch y x klass
    count = sum_by_task(torch.ones_like(classes[0, 0, 0]))
    anything = sum_by_task((classes >= threshold).float()) > 0
    return torch.where(anything, sum_by_task(classes) / count, 0.0).movedim(-1, 1)


def _feature_shapes(level: FeatureLevel, teacher: BevShapes, student: BevShapes) -> tuple[Shape, Shape]:
    """Teacher's and student's shapes of the maps to compare."""
    if level == "neck":
        return teacher.neck, student.neck
    there, here = teacher.canvas if level == "canvas" else teacher.stages[0], student.canvas
    if there[1] % here[1] or there[2] % here[2]:
        raise ValueError(
            f"the teacher's {level} of {there[1]}x{there[2]} cells cannot be averaged to the student's canvas of "
            f"{here[1]}x{here[2]}"
        )
    return there, here
