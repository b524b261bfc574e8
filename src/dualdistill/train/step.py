"""What one training step minimises: the figure of the paper as a function."""

from typing import Protocol, runtime_checkable

import torch
from torch import nn

from dualdistill.structures import Batch, BevOutput, Boxes, Losses, Targets


@runtime_checkable
class Detector(Protocol):
    """A BEV detector, LiDAR or camera."""

    weights: dict[str, float]

    def __call__(self, batch: Batch) -> BevOutput: ...
    def targets(self, batch: Batch) -> Targets: ...
    def losses(self, output: BevOutput, batch: Batch) -> Losses: ...
    def detect(self, output: BevOutput, batch: Batch) -> tuple[Boxes, ...]: ...


@runtime_checkable
class Distiller(Protocol):
    """Two outputs and the truth in, named unweighted losses out."""

    def __call__(self, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses: ...


class Distillation(nn.Module):
    """A distiller with the frozen teacher it listens to, which is nobody's child: no state dict holds it."""

    def __init__(self, distiller: nn.Module, weights: dict[str, float], teacher: nn.Module):
        super().__init__()
        self.distiller = distiller
        self.weights = weights
        self._teacher = (freeze(teacher),)

    @property
    def teacher(self) -> nn.Module:
        return self._teacher[0]

    def forward(self, batch: Batch, learnt: BevOutput, targets: Targets) -> Losses:
        with torch.no_grad():
            taught = self.teacher(batch)
        return self.distiller(taught, learnt, targets)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay must spare (timm's convention)."""
        inner = getattr(self.distiller, "no_weight_decay", set)
        return {f"distiller.{name}" for name in inner()}

    def health(self) -> dict[str, float]:
        """What the distiller wants watched, say how orthogonal its projectors are."""
        return getattr(self.distiller, "health", dict)()


def freeze(module: nn.Module) -> nn.Module:
    """No gradient, evaluation mode for good: batch norm keeps its running statistics (spec centerpoint 18.13)."""
    return module.eval().requires_grad_(False)


def training_losses(student: Detector, distillation: Distillation | None, batch: Batch) -> Losses:
    """Everything one step minimises, unweighted, by name. A teacher learns alone, as a student without distillation."""
    learnt = student(batch)
    losses = student.losses(learnt, batch)
    if distillation is not None:
        losses = losses | distillation(batch, learnt, student.targets(batch))
    return losses
