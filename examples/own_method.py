"""Plain feature mimicking: the student's map before its head resembles the teacher's, in every cell alike."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from dualdistill.distill.method import DistillerInputs, Requires
from dualdistill.experiment.experiment import Experiment
from dualdistill.recipes.synthetic import distilled
from dualdistill.settings import NonNegative, checked
from dualdistill.structures import BevOutput, Losses, Targets


@dataclass(frozen=True, kw_only=True)
@checked
class PlainMimicConfig:
    """Settings of `PlainMimic`."""

    weight: NonNegative = 1.0

    @property
    def requires(self) -> Requires:
        return Requires(teacher_maps=("neck",))

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every loss by name."""
        return {"mimic": self.weight}

    def build(self, inputs: DistillerInputs) -> "PlainMimic":
        """
        Raises:
            ValueError: if the maps differ in size.
        """
        teacher, student = inputs.teacher.neck, inputs.student.neck
        if teacher[1:] != student[1:]:
            raise ValueError(f"the maps before the heads must have one size, got {teacher} and {student}")
        return PlainMimic(student[0], teacher[0])


class PlainMimic(nn.Module):
    """Loss "mimic". Owns the 1x1 convolution between the two widths, neither teacher nor student."""

    def __init__(self, student_channels: int, teacher_channels: int):
        super().__init__()
        self.align = nn.Conv2d(student_channels, teacher_channels, 1)

    def forward(self, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses:
        with torch.autocast(student.neck.device.type, enabled=False):
            return {"mimic": F.mse_loss(self.align(student.neck.float()), teacher.neck.detach().float())}

    def no_weight_decay(self) -> set[str]:
        return set()


def plain_mimic() -> Experiment:
    """Plain feature mimicking of CenterPoint, at the size of the synthetic recipes."""
    return distilled(PlainMimicConfig(), "centerpoint")
