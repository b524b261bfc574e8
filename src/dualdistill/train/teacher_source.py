"""Where the output of a frozen teacher comes from: the network itself, or a cache of its outputs on disk."""

from typing import Protocol, runtime_checkable

import torch
from torch import nn

from dualdistill.experiment.training import TeacherPrecision
from dualdistill.ops.frozen import FrozenModule
from dualdistill.structures import Batch, BevOutput
from dualdistill.train.teacher_cache import TeacherCache


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


class CachedTeacher(FrozenModule):
    """Outputs from a `TeacherCache`, with the teacher's live head for distillers that call it.

    A batch of `WithTeacher` samples brings them along; for others the files are read here.
    """

    def __init__(self, head: nn.Module, cache: TeacherCache):
        super().__init__(head)
        self.cache = cache

    def forward(self, batch: Batch) -> BevOutput:
        kept = batch.teacher
        if kept is None:
            kept = tuple(part.to(batch.augmented_from_bev.device) for part in self.cache.load(batch))
        return self.cache.output(kept, head=self.module)


def channels_last(module: nn.Module) -> nn.Module:
    """Weights of 2D convolutions stored channels last, as maps then are: faster on CPUs and on tensor cores.

    Not `module.to(memory_format=…)`, which fails on the five axes of sparse convolution kernels.
    """
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module
