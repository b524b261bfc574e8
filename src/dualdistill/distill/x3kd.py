"""X3KD-style distillation across modalities (features, an adversary, outputs) and tasks (instance segmentation).

Written from a description: X3KD (CVPR 2023) released no code, and the description could be checked only against the
abstract. Results are "X3KD-style"; not one weight or threshold below is known to be the authors'. What was assumed, and
how surely, is listed in docs/methods/x3kd.md#what-was-assumed.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dualdistill.distill.align import no_weight_decay
from dualdistill.distill.method import DistillerConfig, DistillerInputs, Requires, check_no_effect
from dualdistill.distill.shapes import BevShapes
from dualdistill.distill.terms import balanced_mean, in_students_units, sum_by_task
from dualdistill.ops.blocks import ResidualBlock
from dualdistill.ops.focal import gaussian_focal, probability
from dualdistill.ops.processes import mean_count
from dualdistill.settings import Few, NonNegative, Positive, PositiveShare, checked
from dualdistill.structures import CLASSES, TASK_OF_CLASS, BevOutput, HeadOutput, InstanceMap, Losses, Targets

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
@checked
class XfdConfig:
    """Feature distillation: the student's map resembles the teacher's."""

    reduce: FeatureReduce = "mean"
    weight: NonNegative = 10.0


@dataclass(frozen=True, kw_only=True)
@checked
class XatConfig:
    """Adversarial training: a discriminator should not be able to separate the student's map from the teacher's."""

    reversal: Positive = 1.0
    """Strength of the reversed gradient; the discriminator's own is not touched by it."""
    weight: NonNegative = 10.0


@dataclass(frozen=True, kw_only=True)
@checked
class XodConfig:
    """Output distillation: the student's head predicts what the teacher's does."""

    positive_threshold: PositiveShare = 0.6
    """Probability of the teacher from which on a cell is a positive."""
    positives: Positives = "all"
    box_threshold: PositiveShare = 0.1
    """Cells where the teacher's probability of every class of a task is below this have no box to imitate."""
    heatmap_weight: NonNegative = 1.0
    box_weight: NonNegative = 0.25


@dataclass(frozen=True, kw_only=True)
@checked
class XisConfig:
    """Instance segmentation: image features predict the objects that an instance segmenter finds."""

    weight: NonNegative = 1.0


@dataclass(frozen=True, kw_only=True)
@checked
class X3kdConfig(DistillerConfig):
    """Settings of `X3kd`; all defaults are unverified (docs/methods/x3kd.md#what-was-assumed). A part that is None is
    left out."""

    xfd: XfdConfig | None = field(default_factory=XfdConfig)
    xat: XatConfig | None = field(default_factory=XatConfig)
    xod: XodConfig | None = field(default_factory=XodConfig)
    xis: XisConfig | None = None

    level: FeatureLevel = "stage0"
    """Maps that xfd and xat compare."""
    refine_channels: Few = 256
    """Width of the layers between the student's canvas and the comparison; level "neck" has none."""

    def __post_init__(self) -> None:
        if not (self.xfd or self.xat or self.xod or self.xis):
            raise ValueError("xfd, xat, xod and xis are all none: nothing to distil; leave the distiller out")
        if self.xfd is not None and self.xfd.reduce == "balanced" and self.level != "canvas":
            raise ValueError('xfd.reduce "balanced" needs level "canvas": no other map has empty cells')
        if not self.compares_features:
            check_no_effect(self, "neither xfd nor xat compares features", ("level", "refine_channels"))

    @property
    def compares_features(self) -> bool:
        return self.xfd is not None or self.xat is not None

    @property
    def requires(self) -> Requires:
        return Requires(
            teacher_maps=(self.level,) if self.compares_features else (), instance_masks=self.xis is not None
        )

    @property
    def weights(self) -> dict[str, float]:
        weights = {name: part.weight for name, part in (("xfd", self.xfd), ("xat", self.xat)) if part is not None}
        if self.xod is not None:
            weights |= {"xod/heatmap": self.xod.heatmap_weight, "xod/box": self.xod.box_weight}
        return (
            weights if self.xis is None else weights | {f"xis/{term}": self.xis.weight for term in ("class", "center")}
        )

    def compared(self, teacher: BevOutput | BevShapes, student: BevOutput | BevShapes) -> tuple[Any, Any]:
        """The maps of teacher and student that xfd and xat compare, or their shapes."""
        if self.level == "neck":
            return teacher.neck, student.neck
        return teacher.canvas if self.level == "canvas" else teacher.stages[0], student.canvas

    def build(self, inputs: DistillerInputs) -> "X3kd":
        return X3kd(self, inputs)


class X3kd(nn.Module):
    """Losses "xfd", "xat", "xod/heatmap", "xod/box", "xis/class", "xis/center", as far as they are configured.

    Owns the refinement, the discriminator and the instance head, neither teacher nor student.
    """

    def __init__(self, config: X3kdConfig, inputs: DistillerInputs):
        super().__init__()
        teacher, student = inputs.teacher, inputs.student
        if (config.xod is not None or config.level == "neck") and teacher.neck[1:] != student.neck[1:]:
            raise ValueError(f"the heads must share one grid, got {teacher.neck[1:]} and {student.neck[1:]} cells")
        self.config = config
        self.task_of_class = inputs.task_of_class
        self.refine: nn.Module | None = None
        self.discriminator: nn.Module | None = None
        self.instances: InstanceHead | None = None
        if config.compares_features:
            if config.level == "stage0" and not teacher.stages:
                raise ValueError("the teacher has no stages, and so no stage0 to compare")
            there, here = config.compared(teacher, student)
            if there[1] % here[1] or there[2] % here[2]:
                raise ValueError(
                    f"the teacher's {config.level} of {there[1]}x{there[2]} cells cannot be averaged to the student's "
                    f"canvas of {here[1]}x{here[2]}"
                )
            if config.level == "neck":
                self.refine = nn.Conv2d(here[0], there[0], 1)
            else:
                self.refine = refinement(here[0], config.refine_channels, there[0])
            if config.xat is not None:
                if min(here[1:]) < PATCH:
                    raise ValueError(f"the discriminator needs at least {PATCH}x{PATCH} cells, got {here[1:]}")
                self.discriminator = discriminator(there[0])
        if config.xis is not None:
            if student.image is None:
                raise ValueError("xis needs image features: this student has none")
            self.instances = InstanceHead(student.image[0], classes=len(inputs.task_of_class))
        self._figures: dict[str, Tensor] = {}

    def forward(self, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses:
        """All in float32, whatever precision the detectors ran in. Raises ValueError if xis is configured and the
        targets have no instances."""
        xfd, xat, xod = self.config.xfd, self.config.xat, self.config.xod
        losses: Losses = {}
        with torch.autocast(student.neck.device.type, enabled=False):
            if self.refine is not None:
                theirs, ours = self.config.compared(teacher, student)
                theirs, ours = theirs.detach().float(), self.refine(ours.float())
                if theirs.shape[-2:] != ours.shape[-2:]:
                    theirs = F.adaptive_avg_pool2d(theirs, ours.shape[-2:])
                if xfd is not None:
                    losses["xfd"] = feature_loss(ours, theirs, xfd.reduce)
                    self._figures["xfd/of_nothing"] = theirs.abs().mean()
                if xat is not None and self.discriminator is not None:
                    logits = self.discriminator(theirs), self.discriminator(reverse_gradient(ours, xat.reversal))
                    losses["xat"] = adversarial_loss(*logits)
                    right = (logits[0] > 0).float().mean() + (logits[1] <= 0).float().mean()
                    self._figures["xat/accuracy"] = right / 2
            if xod is not None:
                responses = in_students_units(teacher.predictions, targets)
                losses["xod/heatmap"] = heatmap_loss(
                    probability(student.predictions.heatmap),
                    pseudo_heatmap(probability(responses.heatmap), xod.positive_threshold, xod.positives),
                )
                losses["xod/box"] = box_loss(responses, student.predictions, xod.box_threshold, self.task_of_class)
            if self.instances is not None:
                if student.camera is None or targets.instances is None:
                    raise ValueError("xis needs image features of the student and targets.instances, one is None")
                klass, offset = self.instances(student.camera.features.float())
                found = instance_losses(klass, offset, targets.instances)
                losses |= {f"xis/{name}": loss for name, loss in found.items()}
        return losses

    no_weight_decay = no_weight_decay  # the function of `align` as a method

    def diagnostics(self) -> dict[str, float]:
        """Figures of the last batch: "xat/accuracy" of the discriminator (near 1 for long: it gives no useful gradient;
        0.5 from the start: it does not learn) and "xfd/of_nothing", the feature loss of a map of zeros."""
        return {name: float(value) for name, value in self._figures.items()}


def reverse_gradient(features: Float[Tensor, "*shape"], strength: float = 1.0) -> Float[Tensor, "*shape"]:
    """The same numbers; the gradient that comes back is multiplied by -`strength`."""
    same = features.view_as(features)
    if same.requires_grad:
        same.register_hook(lambda gradient: -strength * gradient)
    return same


def refinement(in_channels: int, hidden: int, out_channels: int) -> nn.Module:
    """Layers between the student's canvas and the teacher's map: what the comparison may change. Never negative."""
    layers = nn.Sequential(
        *(nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU()),
        *(ResidualBlock(hidden, hidden), nn.Conv2d(hidden, out_channels, 1), nn.ReLU()),
    )
    return nn.Sequential(OrderedDict(layers=layers))


def discriminator(in_channels: int, channels: tuple[int, int, int] = (256, 128, 64)) -> nn.Module:
    """Logits of "from the teacher", one a patch of 8x8 cells. No batch norm: its statistics would reveal the source."""
    layers = nn.Sequential()
    for before, width in zip((in_channels, *channels), channels, strict=False):
        layers.extend((nn.Conv2d(before, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)))
    return nn.Sequential(OrderedDict(layers=layers.append(nn.Conv2d(channels[-1], 1, 3, padding=1))))


def adversarial_loss(
    teacher_logits: Float[Tensor, "batch 1 y x"], student_logits: Float[Tensor, "batch 1 y x"]
) -> Float[Tensor, ""]:
    """Binary cross entropy of a discriminator's logits, half on each side; ln 2 for one that cannot separate them. One
    optimiser steps both networks, with no alternation (docs/methods/x3kd.md#adversarial-training)."""
    teacher = F.binary_cross_entropy_with_logits(teacher_logits, torch.ones_like(teacher_logits))
    student = F.binary_cross_entropy_with_logits(student_logits, torch.zeros_like(student_logits))
    return (teacher + student) / 2


def feature_loss(
    student: Float[Tensor, "batch chan y x"], teacher: Float[Tensor, "batch chan y x"], reduce: FeatureReduce = "mean"
) -> Float[Tensor, ""]:
    """Mean absolute difference, over all cells or half over the teacher's empty ones
    (docs/methods/x3kd.md#feature-distillation)."""
    error = (student - teacher).abs()
    return error.mean() if reduce == "mean" else balanced_mean(error, (teacher != 0).any(dim=1, keepdim=True))


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


def box_loss(
    teacher: HeadOutput, student: HeadOutput, threshold: float, task_of_class: tuple[int, ...] = TASK_OF_CLASS
) -> Float[Tensor, ""]:
    """Smooth L1 of the codes of every cell, mean over codes; mean over cells, weighted by the teacher's mean
    probability over the classes of a task; sum over tasks (docs/methods/x3kd.md#output-distillation).

    Args:
        teacher: In the student's units, without gradient.
        threshold: A cell where no class of the task is this probable has no weight.
    """
    error = F.smooth_l1_loss(student.regression.float(), teacher.regression, reduction="none").mean(dim=2)
    weight = box_weights(probability(teacher.heatmap), threshold, task_of_class)  # batch task y x
    return ((error * weight).sum(dim=(0, 2, 3)) / mean_count(weight.sum(dim=(0, 2, 3)), at_least=1e-4)).sum()


@torch.no_grad()
def box_weights(
    probability: Float[Tensor, "batch klass y x"], threshold: float, task_of_class: tuple[int, ...] = TASK_OF_CLASS
) -> Float[Tensor, "batch task y x"]:
    """Mean probability over the classes of each task, 0 where none of them reaches the threshold."""
    classes = probability.movedim(1, -1)  # batch y x klass
    count = sum_by_task(torch.ones_like(classes[0, 0, 0]), task_of_class)
    anything = sum_by_task((classes >= threshold).float(), task_of_class) > 0
    return torch.where(anything, sum_by_task(classes, task_of_class) / count, 0.0).movedim(-1, 1)


class InstanceHead(nn.Module):
    """Instance segmentation of image features: the class of each cell and the offset to its object's centre; used in
    training only (docs/methods/x3kd.md#instance-segmentation).

    Differs from the description, a two-stage network with proposals and masks, in that it is a single stage, as far as
    known without precedent in that method: class and offset separate instances without boxes.
    """

    def __init__(self, in_channels: int, channels: int = 256, *, classes: int = len(CLASSES)):
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU())
        self.klass = nn.Conv2d(channels, classes + 1, 1)
        self.offset = nn.Conv2d(channels, 2, 1)

    def forward(
        self, features: Float[Tensor, "batch cam chan h w"]
    ) -> tuple[Float[Tensor, "images klass h w"], Float[Tensor, "images 2 h w"]]:
        """Logits of the classes, then of no object; offsets (right, down), in cells."""
        shared = self.shared(features.flatten(0, 1))
        return self.klass(shared), self.offset(shared)


def instance_losses(
    logits: Float[Tensor, "images klass h w"], offsets: Float[Tensor, "images 2 h w"], truth: InstanceMap
) -> Losses:
    """Losses "class" (cross entropy; cells of objects weigh as much as all others) and "center" (smooth L1 of the
    offset, mean over cells of objects). Raises ValueError if truth and features differ in size."""
    klass, instance = truth.klass.flatten(0, 1), truth.instance.flatten(0, 1)
    if klass.shape[-2:] != logits.shape[-2:]:
        raise ValueError(f"instances must have the size of image features {logits.shape[-2:]}, got {klass.shape[-2:]}")
    seen = klass >= 0
    entropy = F.cross_entropy(logits, torch.where(seen, klass, logits.shape[1] - 1).long(), reduction="none")
    error = F.smooth_l1_loss(offsets, center_offsets(instance, seen), reduction="none").mean(dim=1)
    return {
        "class": balanced_mean(entropy[:, None], seen[:, None]),
        "center": (error * seen).sum() / mean_count(seen.sum(), at_least=1),
    }


@torch.no_grad()
def center_offsets(
    instance: Int[Tensor, "images h w"], seen: Bool[Tensor, "images h w"]
) -> Float[Tensor, "images 2 h w"]:
    """From each cell of an object to the mean of all its visible cells, (right, down), in cells; elsewhere 0."""
    images, height, width = instance.shape
    down, right = torch.meshgrid(*(torch.arange(n, device=instance.device) for n in (height, width)), indexing="ij")
    cell = torch.stack([right, down], dim=-1).float().expand(images, -1, -1, -1)
    number = torch.where(seen, instance, -1).long() + 1  # 0 is background
    number = number + int(number.max() + 1) * torch.arange(images, device=instance.device)[:, None, None]
    total = cell.new_zeros(int(number.max()) + 1, 3)
    total = total.index_add(0, number.flatten(), F.pad(cell, (0, 1), value=1.0).flatten(0, 2))
    middle = (total[:, :2] / total[:, 2:].clamp(min=1))[number]
    return torch.where(seen[..., None], middle - cell, 0.0).permute(0, 3, 1, 2)
