"""Whole training steps on a random batch, on any device, for `bench` and `plan --measure`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dualdistill.experiment.experiment import Experiment
from dualdistill.structures import weighted_sum
from dualdistill.train.launch import configure
from dualdistill.train.random_batch import random_batch
from dualdistill.train.step_cost import DummyStep


class TimedStep:
    """Training steps of an experiment on a random batch that is on the device: forward, backward, clipping, AdamW."""

    def __init__(self, experiment: Experiment, samples: int, device: str):
        self.device, self.dummy = device, DummyStep(experiment)
        self.half = experiment.training.precision == "bf16"
        dummy = self.dummy
        dummy.batch = random_batch(experiment.data, samples).to(device)  # only now: the parts were built on one sample
        configure(dummy.training.to(device), experiment.training)
        self.parameters = [p for module in dummy.training.learners for p in module.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=1e-6, fused=True)

    def __call__(self, distil: bool = True) -> None:
        training = self.dummy.training
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            loss = weighted_sum(training(self.dummy.batch, distil), training.weights)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimiser.step()
        self.optimiser.zero_grad()

    def alone(self) -> None:
        """A step without distillation."""
        self(distil=False)

    def flops(self, run: Callable[[], None]) -> int:
        """Operations of all convolutions and matrix products of one step; a multiplication and an addition are two."""
        deformable: dict[Any, Any] = {
            torch.ops.torchvision.deform_conv2d: lambda image, weight, *_, **__: _taps(image, weight),
            torch.ops.torchvision._deform_conv2d_backward: lambda _, image, weight, *__, **___: (
                2 * _taps(image, weight)
            ),
        }
        with FlopCounterMode(display=False, custom_mapping=deformable) as counter:
            run()
        return counter.get_total_flops()


def _taps(image: Sequence[int], weight: Sequence[int]) -> int:
    """Operations of a deformable convolution of stride 1 from its shapes (batch chan y x) and (out in ky kx)."""
    batch, _, height, width = image
    out, chan, rows, columns = weight
    return 2 * batch * height * width * out * chan * rows * columns
