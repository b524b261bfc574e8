"""What a training changes: weights, their moving average, optimisers, the number of steps."""

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from dualdistill.experiment.training import TrainingConfig
from dualdistill.train.schedule import learning_rate, momentum, parameter_groups
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
