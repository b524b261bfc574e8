"""How a network is trained: length, batch, precision, optimiser and schedule."""

from dataclasses import dataclass, field
from typing import Literal

from dualdistill.errors import UserError

TeacherPrecision = Literal["fp32", "bf16"]
"""Precision of the frozen teacher's forward pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimiserConfig:
    """AdamW and its schedule. Defaults: the student's (docs/methods/bevdepth.md#training-recipe)."""

    learning_rate: float = 2e-4
    """Peak for "step"; start of the cycle for "cyclic"."""
    weight_decay: float = 0.01
    """On every parameter but those a module's `no_weight_decay()` names."""
    schedule: Literal["step", "cyclic"] = "step"
    """"step": linear warm-up, then x0.1 at each of `drops`. "cyclic": cosine up to `cycle_peak` times the rate over the
    first `cycle_rise` of training, cosine down to 1e-4 of it, momentum mirrored
    (docs/methods/centerpoint.md#cyclic-schedule)."""
    drops: tuple[float, ...] = (16 / 24, 22 / 24)
    """Fractions of training at which "step" divides the rate by ten."""
    warmup_steps: int = 500
    warmup_ratio: float = 1e-3
    """Rate at step 0 as a share of `learning_rate` ("step" only)."""
    cycle_peak: float = 10.0
    cycle_rise: float = 0.4
    clip_norm: float = 5.0
    """L2 norm to which the gradient is clipped; 0 = not at all."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if not all(0 < a < 1 for a in self.drops):
            raise ValueError(f"drops are fractions of training between 0 and 1, got {self.drops}")
        if not 0 < self.cycle_rise < 1:
            raise ValueError(f"cycle_rise is a fraction of training between 0 and 1, got {self.cycle_rise}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How long, how fast, in what precision."""

    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    batch_size: int = 8
    """Samples of all processes together, before accumulation: each of N devices takes an N-th of them."""
    accumulate: int = 1
    """Batches whose gradients make one step."""
    epochs: float | None = 24
    """Length of training in passes over the (class-balanced) training split; None where `steps` is given."""
    steps: int | None = None
    """Length of training in optimiser steps; None where `epochs` is given."""
    precision: Literal["32", "bf16"] = "32"
    distiller_warmup_steps: int = 0
    """Steps at the beginning in which the distiller learns alone. Its adapters start from random weights: beside a
    student that is trained already, their first gradients would undo it."""
    distill_fraction: float = 1.0
    """Fraction of the steps, from the first on, that distil. Afterwards the student is trained alone: a teacher can
    limit a student towards the end (Cho and Hariharan, ICCV 2019). 0: in no step."""
    distill_weight: float = 1.0
    """Factor on all weights of the distiller."""
    gradient_share: float | None = None
    """Largest gradient of distillation on the student's BEV map, in units of the head's; None: not bounded. See
    `gradient_bound`."""
    teacher_precision: TeacherPrecision = "fp32"
    """Precision of the frozen teacher's forward pass."""
    cache_precision: Literal["fp32", "fp16", "bf16"] = "bf16"
    """Precision of the teacher's features in a `--teacher-cache`; its heat maps and boxes are always float32."""
    ema_decay: float = 0.0
    """Exponential moving average of the weights, evaluated and saved instead of them; 0 = none."""
    save_every: int = 1000
    """Steps between checkpoints."""
    keep_last: int | None = None
    """Checkpoints that are kept beside the best one, the newest; None: all."""
    log_every: int = 10
    validate_steps: int | None = None
    """Steps between validations on the validation split; None: no validation, unless `validate_epochs` is given. The
    checkpoint with the highest NDS is `best`."""
    validate_epochs: float | None = None
    """The same in passes over the training split."""
    validate_samples: int | None = None
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
        if min(self.batch_size, self.accumulate, self.save_every, self.log_every) < 1:
            raise ValueError("batch_size, accumulate, save_every and log_every must be at least 1")
        if self.validate_steps is not None and self.validate_epochs is not None:
            raise ValueError("give the interval of validations either in validate_steps or in validate_epochs")
        if self.validate_samples is not None and self.validate_steps is None and self.validate_epochs is None:
            raise ValueError("validate_samples has no effect without validate_steps or validate_epochs: set it to none")
        for name in ("keep_last", "validate_steps", "validate_epochs", "validate_samples"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive or none, got {value}")
        if self.distiller_warmup_steps < 0:
            raise ValueError(f"distiller_warmup_steps must not be negative, got {self.distiller_warmup_steps}")
        if not 0 <= self.distill_fraction <= 1:
            raise ValueError(f"distill_fraction must lie in [0, 1], got {self.distill_fraction}")
        if self.distill_weight <= 0:
            raise ValueError(f"distill_weight must be positive, got {self.distill_weight}")
        if self.gradient_share is not None and self.gradient_share <= 0:
            raise ValueError(f"gradient_share must be positive or none, got {self.gradient_share}")
        if (
            self.steps is not None
            and self.distiller_warmup_steps
            and self.distiller_warmup_steps >= self.distill_fraction * self.steps
        ):
            raise ValueError(
                f"distiller_warmup_steps ({self.distiller_warmup_steps}) must leave steps in which the student is "
                f"distilled; there are {self.distill_fraction * self.steps:g} of {self.steps}"
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")

    def check_alone(self) -> None:
        """Raises ValueError for a setting that has no effect without distillation."""
        distillation = ("distiller_warmup_steps", "distill_fraction", "distill_weight", "gradient_share")
        default = TrainingConfig(epochs=self.epochs, steps=self.steps)
        for name in (*distillation, "teacher_precision"):
            if (value := getattr(default, name)) != getattr(self, name):
                raise ValueError(f"training.{name} has no effect without a distiller: set it to {str(value).lower()}")

    def batch_of_one(self, processes: int) -> int:
        """Samples of one process and step.

        Raises:
            UserError: if the processes cannot share a batch equally.
        """
        if self.batch_size % processes:
            raise UserError(
                f"{processes} devices cannot share a batch of {self.batch_size}: choose another number of devices, or "
                f"set training.batch_size to a multiple of it (and training.accumulate, for the same samples a step)."
            )
        return self.batch_size // processes

    def total_steps(self, samples: int) -> int:
        """Optimiser steps of a whole training over a split of `samples`."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self._steps_of(self.epochs, samples)

    def validation_interval(self, samples: int) -> int | None:
        """Steps between validations, with a training split of `samples`; None: no validation."""
        return self.validate_steps if self.validate_epochs is None else self._steps_of(self.validate_epochs, samples)

    def _steps_of(self, epochs: float, samples: int) -> int:
        return max(1, round(epochs * samples / (self.batch_size * self.accumulate)))
