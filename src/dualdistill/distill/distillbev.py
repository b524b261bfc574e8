"""DistillBEV: a camera student learns the features of a LiDAR teacher, weighted region by region.

Source: DistillBEV, ICCV 2023; docs/methods/distillbev.md. Two encoder levels are brought to the teacher's shape
by upsampling and three convolutions, the map before the head by one. The loss is `FeatureMimic`, line for line the
one that DualDistill took over: true positives and misses (cells in a box, whatever the teacher predicts there), false
positives of the teacher, and the rest, scaled by the area of the object or the number of cells, attended to by both
networks.

Differs from the released code in the test points of the masks (see `mfd`). Its other adapters, sources of false
positives and scales, which no published run uses, do not exist here.
"""

from dataclasses import dataclass

import torch
from torch import nn

from dualdistill.distill.align import neck_aligner, no_weight_decay, stage_aligner
from dualdistill.distill.method import DistillerConfig, DistillerInputs, Requires
from dualdistill.distill.mfd import NECK, MimicConfig
from dualdistill.settings import checked
from dualdistill.structures import BevOutput, Losses, Targets


@dataclass(frozen=True, kw_only=True)
@checked
class DistillBevConfig(MimicConfig, DistillerConfig):
    """Settings of `DistillBev`; the defaults are the released scripts', save the test points of the masks."""

    @property
    def requires(self) -> Requires:
        return Requires(teacher_maps=self.teacher_maps)

    def build(self, inputs: DistillerInputs) -> "DistillBev":
        return DistillBev(self, inputs)


class DistillBev(nn.Module):
    """Losses "mfd/<level>/<term>"; owns the adapters, neither teacher nor student."""

    def __init__(self, config: DistillBevConfig, inputs: DistillerInputs):
        super().__init__()
        self.config = config
        self.align = nn.ModuleDict()
        there = config.maps("teacher", inputs.teacher)
        for level, here in config.maps("student", inputs.student).items():
            shapes = here, there[level]
            self.align[level] = neck_aligner(*shapes) if level == NECK else stage_aligner("upsample-conv", *shapes)
        self.mimic = config.mimic(inputs.teacher)

    def forward(self, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses:
        """All in float32, whatever precision the detectors ran in."""
        with torch.autocast(student.neck.device.type, enabled=False):
            maps = self.config.maps("student", student)
            aligned = {level: align(maps[level].float()) for level, align in self.align.items()}
            return self.mimic(self.config.maps("teacher", teacher), aligned, teacher.predictions, targets)

    no_weight_decay = no_weight_decay  # the function of `align` as a method
