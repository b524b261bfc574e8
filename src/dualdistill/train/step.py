"""What one training step minimises: the figure of the paper as a module."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dualdistill.experiment.training import TeacherPrecision
from dualdistill.ops.frozen import FrozenModule
from dualdistill.ops.processes import mean_count
from dualdistill.structures import Batch, BevOutput, Detector, Losses, weighted_sum


@runtime_checkable
class TeacherSource(Protocol):
    """A module without parameters that gives the teacher's output for a batch, without gradient."""

    def __call__(self, batch: Batch) -> BevOutput: ...


class LiveTeacher(FrozenModule):
    """The teacher's forward pass."""

    def __init__(self, teacher: nn.Module, precision: TeacherPrecision = "fp32"):
        """Args: `precision` is that of the forward pass alone; the head stays float32 for distillers that call it."""
        # In the layout of the student's maps: what compares them need not transpose.
        super().__init__(channels_last(teacher))
        self.precision = precision

    def forward(self, batch: Batch) -> BevOutput:
        # Not inference mode: its tensors cannot be compared with a map that has a gradient.
        device = batch.augmented_from_bev.device.type
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.module(batch)


def channels_last(module: nn.Module) -> nn.Module:
    """Weights of 2D convolutions stored channels last, as maps then are: faster on CPUs and on tensor cores.

    Not `module.to(memory_format=…)`, which fails on the five axes of sparse convolution kernels.
    """
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


class Training(nn.Module):
    """A detector that learns, alone or from a teacher: one module, so that distributed training wraps one thing.

    `assemble` builds it from an experiment. A training step is::

        losses = training(batch, distil=step < last_distilled_step)
        weighted_sum(losses, training.weights).backward()

    Attributes:
        detector: The network that is trained, evaluated and kept.
        distiller: Adapters and losses of the distillation method, trained along; None without distillation.
        teacher: Moves with `to`, has no parameters and no state; None without distillation.
        bound: Of `TrainingConfig.gradient_share`, if any. Its buffers belong in a checkpoint.
    """

    def __init__(
        self,
        detector: nn.Module,
        *,
        teacher: TeacherSource | None = None,
        distiller: nn.Module | None = None,
        distiller_weights: Mapping[str, float] | None = None,
        gradient_share: float | None = None,
    ):
        """Raises ValueError for a distiller without a teacher, or a teacher without a distiller."""
        super().__init__()
        if (teacher is None) != (distiller is None):
            raise ValueError("a teacher and a distiller come together: pass both, or neither")
        self.detector = channels_last(detector)
        self.distiller = distiller
        self.teacher = teacher
        self.bound = GradientBound(gradient_share) if gradient_share is not None else None
        self._distiller_weights = dict(distiller_weights or {})

    def forward(self, batch: Batch, distil: bool = True) -> Losses:
        """Named, unweighted losses of a batch: the detector's own, and the distiller's if there is one. Without
        `distil` its parameters get no gradient."""
        detector = cast(Detector, self.detector)
        with _counted_together(self):
            output = detector(batch)
            targets = detector.targets(batch)
            losses = detector.losses(output, targets)
            if self.distiller is None or self.teacher is None or not distil:
                return losses
            distilled: Losses = self.distiller(self.teacher(batch), output, targets)
            if self.bound is not None and self.training:
                own, theirs = weighted_sum(losses, detector.weights), weighted_sum(distilled, self._distiller_weights)
                self.bound.update(own, theirs, output.canvas)
            return losses | distilled

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every loss by name, as of the last batch: the gradient bound scales the distiller's."""
        factor = self.bound.factor if self.bound is not None else 1.0
        own = cast(Detector, self.detector).weights
        return own | {name: factor * weight for name, weight in self._distiller_weights.items()}

    @property
    def learners(self) -> list[nn.Module]:
        """The modules whose parameters are optimised: the detector, then the distiller."""
        return [self.detector] if self.distiller is None else [self.detector, self.distiller]

    def diagnostics(self) -> dict[str, float]:
        """Figures to log beside the losses: the distiller's, and "distill_factor" of the gradient bound."""
        figures: dict[str, float] = getattr(self.distiller, "diagnostics", dict)()
        return figures if self.bound is None else figures | {"distill_factor": self.bound.factor}


@contextmanager
def _counted_together(module: nn.Module) -> Iterator[None]:
    """Batch norms inside count a batch in one operation instead of one each; synchronised ones insist on their own."""
    counters = {
        norm: counter
        for norm in module.modules()
        if isinstance(norm, _BatchNorm) and norm.training and not isinstance(norm, nn.SyncBatchNorm)
        # The average of all batches, without a momentum, needs the number at once.
        if norm.momentum is not None and (counter := norm.num_batches_tracked) is not None
    }
    for norm in counters:
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, counter in counters.items():
            norm.num_batches_tracked = counter
    if counters:
        torch._foreach_add_([*counters.values()], 1)


EVERY = 5
"""Batches from one measurement to the next: each costs two backward passes through the BEV encoder."""
DECAY = 0.95
"""Decay of the running means over a batch."""


class GradientBound(nn.Module):
    """The factor min(1, share · g_head / g_distill) on the distillation loss: distillation is held to a share of the
    head's gradient.

    Not in the papers. Related: GradNorm (Chen et al., ICML 2018), which balances gradient norms of tasks, and the
    adaptive weight of VQGAN (Esser et al., CVPR 2021, section 3.1), the ratio of two gradient norms at one layer.

    `share` is the largest g_distill in units of g_head. Both are running means of the L2 norms of the two losses'
    gradients on the student's `canvas`, the input of its BEV encoder. The buffers are the state of the bound: a resumed
    training needs them.
    """

    sums: Float[Tensor, "2"]
    """Decayed sums of both norms; the ratio of the means is theirs."""
    batches: Tensor

    def __init__(self, share: float):
        super().__init__()
        if share <= 0:
            raise ValueError(f"the share of the head's gradient must be positive, got {share}")
        self.share = share
        self.register_buffer("sums", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    @property
    def factor(self) -> float:
        """1 before the first measurement, and where distillation has no gradient."""
        head, distill = self.sums.tolist()
        return min(1.0, self.share * head / distill) if distill > 0 else 1.0

    def update(self, head: Float[Tensor, ""], distill: Float[Tensor, ""], canvas: Float[Tensor, "batch _ y x"]) -> None:
        """Count a batch; measure every `EVERY`-th, the first included. The graph is kept for the backward pass. `head`
        and `distill`: weighted sums of the losses of the student's head, and of the distiller's."""
        if int(self.batches) % EVERY == 0:
            norms = []
            for loss in (head, distill):
                (gradient,) = torch.autograd.grad(loss, canvas, retain_graph=True, materialize_grads=True)
                norms.append(mean_count(gradient.norm()))  # over processes, which share one factor
            self.sums.mul_(DECAY**EVERY).add_(torch.stack(norms).double())
        self.batches += 1
