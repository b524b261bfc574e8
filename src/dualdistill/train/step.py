"""What one training step minimises: the figure of the paper as a module."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dualdistill.structures import Batch, Detector, Losses, weighted_sum
from dualdistill.train.gradient_bound import GradientBound
from dualdistill.train.teacher_source import TeacherSource, channels_last


class Training(nn.Module):
    """A detector that learns, alone or from a teacher: one module, so that distributed training wraps one thing.

    `assemble` builds it from an experiment. A training step is::

        losses = training(batch, distil=step < last_distilled_step)
        weighted_sum(losses, training.weights).backward()

    Attributes:
        detector: The network that is trained, evaluated and kept.
        distiller: Adapters and losses of the distillation method, trained along; None without distillation.
        teacher: `LiveTeacher` or `CachedTeacher`; moves with `to`, has no parameters and no state. None without
            distillation.
        bound: Running gradient norms of `TrainingConfig.gradient_share`; None where distillation is not bounded. Its
            buffers belong in a checkpoint.
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
        """Args:
            distiller_weights: Weight of each of the distiller's losses.
            gradient_share: See `GradientBound`.

        Raises:
            ValueError: for a distiller without a teacher, or a teacher without a distiller.
        """
        super().__init__()
        if (teacher is None) != (distiller is None):
            raise ValueError("a teacher and a distiller come together: pass both, or neither")
        self.detector = channels_last(detector)
        self.distiller = distiller
        self.teacher = teacher
        self.bound = GradientBound(gradient_share) if gradient_share is not None else None
        self._distiller_weights = dict(distiller_weights or {})

    def forward(self, batch: Batch, distil: bool = True) -> Losses:
        """Named, unweighted losses of a batch: the detector's own, and the distiller's if there is one.

        Args:
            distil: False leaves the distiller and the teacher out; parameters of the distiller then get no gradient.
        """
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
