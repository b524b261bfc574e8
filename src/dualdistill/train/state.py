"""What a training changes: weights, their moving average, optimisers, the number of steps.

Learning rate, momentum and weight decay are pure functions of the step: nothing to save, nothing to restore.
"""

import copy
import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from dualdistill.experiment.training import OptimiserConfig, TrainingConfig
from dualdistill.train.step import Training


@dataclass(kw_only=True)
class TrainingState:
    """Everything that a checkpoint holds."""

    training: Training
    config: TrainingConfig
    optimisers: list[AdamW]
    """One for each of `training.learners`: the detector's, then the distiller's."""
    average: nn.Module | None
    """Moving average of the detector (`TrainingConfig.ema_decay`); outside `training`, so that processes that train
    together do not wait for its gradients."""
    step: int = 0
    """Optimiser steps that are done."""

    @classmethod
    def initial(cls, training: Training, config: TrainingConfig) -> "TrainingState":
        """The state before the first step, on the device of `training`."""
        options = config.optimiser
        optimisers = [
            AdamW(parameter_groups([learner], options.weight_decay), lr=options.learning_rate, fused=True)
            for learner in training.learners
        ]
        average = copy.deepcopy(training.detector).requires_grad_(False).eval() if config.ema_decay else None
        return cls(training=training, config=config, optimisers=optimisers, average=average)

    @property
    def evaluated(self) -> nn.Module:
        """The weights that are evaluated and kept: the average where there is one."""
        return self.training.detector if self.average is None else self.average

    @property
    def num_bytes(self) -> int:
        """Size of a checkpoint: the weights, their average, and two moments for each number that is learnt."""
        held = [self.training.detector, self.training.distiller, self.average]
        weights = sum(tensor.nbytes for module in held if module is not None for tensor in module.state_dict().values())
        groups = [group for optimiser in self.optimisers for group in optimiser.param_groups]
        return weights + 2 * sum(parameter.nbytes for group in groups for parameter in group["params"])

    def stepping(self, distil: bool) -> list[AdamW]:
        """Optimisers of the coming step: the distiller's alone in its warm-up, the detector's alone without teacher."""
        if not distil:
            return self.optimisers[:1]
        return self.optimisers[1:] if self.step < self.config.distiller_warmup_steps else self.optimisers

    def set_schedule(self, total_steps: int) -> None:
        """Set the learning rate and momentum of the coming step."""
        options = self.config.optimiser
        rate, beta = learning_rate(options, self.step, total_steps), momentum(options, self.step, total_steps)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"], group["betas"] = rate, (beta, 0.999)

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average towards the detector, buffers included; after the first step it is a copy."""
        if self.average is None:
            return
        share = 1.0 if self.step == 1 else 1 - self.config.ema_decay
        old, new = (cast(list[Tensor], [*m.parameters(), *m.buffers()]) for m in (self.average, self.training.detector))
        pairs = list(zip(old, new, strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        if floats:
            torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], share)
        if counters:
            torch._foreach_copy_([a for a, _ in counters], [b for _, b in counters])


def learning_rate(config: OptimiserConfig, step: int, total_steps: int) -> float:
    """Rate used by the update number `step` (from 0) of `total_steps`."""
    fraction = step / total_steps
    base = config.learning_rate
    if config.schedule == "cyclic":
        return _cycle(config, fraction, base, base * config.cycle_peak, base * 1e-4)
    rate = base * 0.1 ** sum(fraction >= drop for drop in config.drops)
    if step < config.warmup_steps:
        rate *= 1 - (1 - step / config.warmup_steps) * (1 - config.warmup_ratio)
    return rate


def momentum(config: OptimiserConfig, step: int, total_steps: int) -> float:
    """Adam's first beta at `step`: 0.9, or mirrored to the rate between 0.9 and 0.9 * 0.85 / 0.95 in a cycle."""
    if config.schedule == "step":
        return 0.9
    return _cycle(config, step / total_steps, 0.9, 0.9 * 0.85 / 0.95, 0.9)


def _cycle(config: OptimiserConfig, fraction: float, start: float, turn: float, end: float) -> float:
    """Half a cosine from `start` to `turn` during the rise, another one to `end` after it."""
    rise = config.cycle_rise
    if fraction < rise:
        end, progress = turn, fraction / rise
    else:
        start, progress = turn, (fraction - rise) / (1 - rise)
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * progress))


def parameter_groups(modules: list[nn.Module], weight_decay: float) -> list[dict[str, object]]:
    """Trainable parameters of `modules` in two groups: decayed, and those a `no_weight_decay()` method exempts."""
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for module in modules:
        names: set[str] = getattr(module, "no_weight_decay", set)()
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                (exempt if name in names else decayed).append(parameter)
    groups: list[dict[str, object]] = [{"params": decayed, "weight_decay": weight_decay}]
    return [*groups, {"params": exempt, "weight_decay": 0.0}] if exempt else groups
