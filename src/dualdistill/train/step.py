"""What one training step minimises: the figure of the paper as a function."""

from typing import Protocol, runtime_checkable

import torch
from torch import nn

from dualdistill.experiment.training import TeacherPrecision
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
class Student(Detector, Protocol):
    """A detector that can be taught: it tells what it should have answered along with how far off it was."""

    def examine(self, output: BevOutput, batch: Batch) -> tuple[Losses, Targets]:
        """`losses` and `targets`, the targets drawn once."""


@runtime_checkable
class TeacherSource(Protocol):
    """Where a teacher's output comes from, if not from the teacher: see `teacher_cache`."""

    def __call__(self, batch: Batch) -> BevOutput: ...


@runtime_checkable
class Distiller(Protocol):
    """Two outputs and the truth in, named unweighted losses out."""

    def __call__(self, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses: ...


class Distillation(nn.Module):
    """A distiller with the frozen teacher it listens to, which is nobody's child: no state dict holds it."""

    def __init__(
        self,
        distiller: nn.Module,
        weights: dict[str, float],
        teacher: nn.Module,
        *,
        teacher_precision: TeacherPrecision = "fp32",
    ):
        """Args: `teacher_precision` is that of its forward pass alone; what it is asked with a gradient is float32."""
        super().__init__()
        self.distiller = distiller
        self.weights = weights
        self.teacher_precision = teacher_precision
        self.remembered: TeacherSource | None = None
        """Asked instead of the teacher, where set."""
        # In the layout of the student's maps: what compares them need not transpose.
        self._teacher = (channels_last(freeze(teacher)),)

    @property
    def teacher(self) -> nn.Module:
        return self._teacher[0]

    def forward(self, batch: Batch, learnt: BevOutput, targets: Targets) -> Losses:
        return self.distiller(self.taught(batch, learnt.neck.device.type), learnt, targets)

    def taught(self, batch: Batch, device: str) -> BevOutput:
        """The teacher's output, without gradient; from memory where there is one.

        Not in inference mode: what is made there may not even be compared with a map that has a gradient.
        """
        if self.remembered is not None:
            return self.remembered(batch)
        half = self.teacher_precision == "bf16"
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=half):
            return self.teacher(batch)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay must spare (timm's convention)."""
        inner = getattr(self.distiller, "no_weight_decay", set)
        return {f"distiller.{name}" for name in inner()}

    def diagnostics(self) -> dict[str, float]:
        """What the distiller wants watched, say how orthogonal its projectors are."""
        return getattr(self.distiller, "diagnostics", dict)()


def channels_last(module: nn.Module) -> nn.Module:
    """Weights of 2D convolutions stored channels last, as maps then are: faster on CPUs and on tensor cores.

    Not `module.to(memory_format=…)`, which fails on the kernels of sparse convolutions: they have five axes.
    """
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


def freeze(module: nn.Module) -> nn.Module:
    """No gradient, evaluation mode for good: batch norm keeps its running statistics
    (docs/methods/centerpoint.md#backbone-and-neck)."""
    return module.eval().requires_grad_(False)


def training_losses(
    student: Detector, distillation: Distillation | None, batch: Batch, learnt: BevOutput | None = None
) -> Losses:
    """Everything one step minimises, unweighted, by name. A teacher learns alone, as a student without distillation.

    Args: `learnt` is the student's output for the batch, where the caller has it.
    """
    learnt = student(batch) if learnt is None else learnt
    if distillation is None:
        return student.losses(learnt, batch)
    if not isinstance(student, Student):
        raise ValueError(f"{type(student).__name__} cannot be taught: it has no `examine`")
    losses, targets = student.examine(learnt, batch)
    return losses | distillation(batch, learnt, targets)
