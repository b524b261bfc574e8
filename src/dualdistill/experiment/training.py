"""How a network is trained: length, batch, precision, optimiser and schedule."""

import math
from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

from msgspec import Meta

from dualdistill.errors import UserError
from dualdistill.settings import Count, Few, Inside, Natural, NonNegative, Positive, PositiveShare, Share, checked

SMALL_BATCH = 64
"""Samples of a batch that even a smaller split may have."""

TeacherPrecision = Literal["fp32", "bf16"]
"""Precision of the frozen teacher's forward pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
@checked
class OptimiserConfig:
    """AdamW and its schedule. Defaults: the student's (docs/methods/bevdepth.md#training-recipe)."""

    learning_rate: Positive = 2e-4
    """Peak for "step"; start of the cycle for "cyclic"."""
    weight_decay: NonNegative = 0.01
    """On every parameter but those a module's `no_weight_decay()` names."""
    schedule: Literal["step", "cyclic"] = "step"
    """"step": linear warm-up, then x0.1 at each of `drops`. "cyclic": cosine up to `cycle_peak` times the rate over the
    first `cycle_rise` of training, cosine down to 1e-4 of it, momentum mirrored
    (docs/methods/centerpoint.md#cyclic-schedule)."""
    drops: tuple[Inside, ...] = (16 / 24, 22 / 24)
    """Fractions of training at which "step" divides the rate by ten."""
    warmup_steps: Natural = 500
    warmup_ratio: PositiveShare = 1e-3
    """Rate at step 0 as a share of `learning_rate` ("step" only)."""
    cycle_peak: Positive = 10.0
    cycle_rise: Inside = 0.4
    clip_norm: NonNegative = 5.0
    """L2 norm to which the gradient is clipped; 0 = not at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
@checked
class TrainingConfig:
    """How long, how fast, in what precision."""

    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    batch_size: Few = 8
    """Samples of all processes together, before accumulation: each of N devices takes an N-th of them."""
    accumulate: Few = 1
    """Batches whose gradients make one step."""
    epochs: Positive | None = 24
    """Length of training in passes over the (class-balanced) training split; None where `steps` is given."""
    steps: Count | None = None
    """Length of training in optimiser steps; None where `epochs` is given."""
    precision: Literal["32", "bf16"] = "32"
    distiller_warmup_steps: Natural = 0
    """Steps at the beginning in which the distiller learns alone. Its adapters start from random weights: beside a
    student that is trained already, their first gradients would undo it."""
    distill_fraction: Share = 1.0
    """Fraction of the steps, from the first on, that distil. Afterwards the student is trained alone: a teacher can
    limit a student towards the end (Cho and Hariharan, ICCV 2019). 0: in no step."""
    distill_weight: Positive = 1.0
    """Factor on all weights of the distiller."""
    gradient_share: Positive | None = None
    """Largest gradient of distillation on the student's BEV map, in units of the head's; None: not bounded. See
    `GradientBound`."""
    teacher_precision: TeacherPrecision = "fp32"
    """Precision of the frozen teacher's forward pass."""
    cache_precision: Literal["fp32", "fp16", "bf16"] = "bf16"
    """Precision of the teacher's features in a `--teacher-cache`; its heat maps and boxes are always float32."""
    ema_decay: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Exponential moving average of the weights, evaluated and saved instead of them; 0 = none."""
    save_every: Count = 1000
    """Steps between checkpoints."""
    keep_last: Count | None = None
    """Checkpoints that are kept beside the best one, the newest; None: all."""
    log_every: Count = 10
    validate_steps: Count | None = None
    """Steps between validations on the validation split; None: no validation, unless `validate_epochs` is given. The
    checkpoint with the highest NDS is `best`."""
    validate_epochs: Positive | None = None
    """The same in passes over the training split."""
    validate_samples: Count | None = None
    """Samples of a validation, spread evenly over the split; None: all."""
    sync_batch_norm: bool = False
    """Batch norm statistics of the samples of all GPUs, not of each GPU alone."""
    tf32: bool = True
    """Float32 convolutions and matrix products of GPUs in TF32, with a mantissa of 10 bits; false: in full float32."""
    cudnn_benchmark: bool = True
    """cuDNN tries its algorithms for each shape and keeps the fastest; false: it guesses, and starts sooner."""
    compile: bool = False
    """The student's image network and both detectors' BEV networks through `torch.compile`: minutes at the start, fewer
    kernels a step. Needs a C++ compiler on a CPU, Triton on a GPU."""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give the length of training either in epochs or in steps (set the other to none)")
        if self.validate_steps is not None and self.validate_epochs is not None:
            raise ValueError("give the interval of validations either in validate_steps or in validate_epochs")
        if self.validate_samples is not None and self.validate_steps is None and self.validate_epochs is None:
            raise ValueError("validate_samples has no effect without validate_steps or validate_epochs: set it to none")
        warmup, distilled = self.distiller_warmup_steps, self.distill_fraction * (self.steps or math.inf)
        if warmup and warmup >= distilled:
            raise ValueError(
                f"distiller_warmup_steps ({warmup}) must leave steps in which the student is distilled; there are "
                f"{distilled:g} of {self.steps}"
            )

    def check_alone(self) -> None:
        """Raises ValueError for a setting that has no effect without distillation."""
        for f in fields(self):
            distils = f.name.startswith("distill") or f.name in ("gradient_share", "teacher_precision")
            if distils and getattr(self, f.name) != f.default:
                value = str(f.default).lower()
                raise ValueError(f"training.{f.name} has no effect without a distiller: set it to {value}")

    def require_samples(self, samples: int) -> None:
        """Raises UserError for batches that would hold most samples of a training split many times."""
        if self.batch_size > (most := max(samples, SMALL_BATCH)):
            raise UserError(
                f"training.batch_size is {self.batch_size}, but the training split has {samples} samples: set it to "
                f"{most} or less (training.accumulate adds up batches)."
            )

    def batch_of_one(self, processes: int) -> int:
        """Samples of one process and step; raises UserError if the processes cannot share a batch equally."""
        if self.batch_size % processes:
            raise UserError(
                f"{processes} devices cannot share a batch of {self.batch_size}: choose another number of devices, or "
                f"set training.batch_size to a multiple of it (and training.accumulate, for the same samples a step)."
            )
        return self.batch_size // processes

    def total_steps(self, samples: int) -> int:
        """Optimiser steps of a whole training over a split of `samples`."""
        return self.steps or self._steps_of(self.epochs or 0.0, samples)

    def validation_interval(self, samples: int) -> int | None:
        """Steps between validations, with a training split of `samples`; None: no validation."""
        return self.validate_steps if self.validate_epochs is None else self._steps_of(self.validate_epochs, samples)

    def _steps_of(self, epochs: float, samples: int) -> int:
        return max(1, round(epochs * samples / (self.batch_size * self.accumulate)))
