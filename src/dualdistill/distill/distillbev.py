"""DistillBEV: a camera student learns the features of a LiDAR teacher, weighted region by region.

Source: DistillBEV, ICCV 2023; docs/methods/distillbev.md. Two encoder levels are brought to the teacher's shape
by upsampling and three convolutions, the map before the head by one. The loss is `FeatureMimic`, line for line the
one that DualDistill took over: true positives and misses (cells in a box, whatever the teacher predicts there), false
positives of the teacher, and the rest, scaled by the area of the object or the number of cells, attended to by both
networks.

Differs from the released code in the test points of the masks (see `regions`). Its other adapters, sources of false
positives and scales, which no published run uses, do not exist here.
"""

from dataclasses import dataclass

import torch
from torch import nn

from dualdistill.distill.align import neck_aligner, no_weight_decay, stage_aligner
from dualdistill.distill.method import DistillerInputs, Requires
from dualdistill.distill.mfd import NECK, MimicConfig
from dualdistill.settings import checked
from dualdistill.structures import BevOutput, Losses, Targets


@dataclass(frozen=True, kw_only=True)
@checked
class DistillBevConfig(MimicConfig):
    """Settings of `DistillBev`; the defaults are the released scripts', save the test points of the masks."""

    @property
    def requires(self) -> Requires:
        return Requires(teacher_maps=self.teacher_maps)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every loss by name."""
        return {f"mfd/{name}": weight for name, weight in self.mimic_weights.items()}

    def build(self, inputs: DistillerInputs) -> "DistillBev":
        """See `DistillerConfig.build`."""
        return DistillBev(self, inputs)


class DistillBev(nn.Module):
    """Losses "mfd/<level>/<term>"; owns the adapters, neither teacher nor student."""

    def __init__(self, config: DistillBevConfig, inputs: DistillerInputs):
        super().__init__()
        self.config = config
        self.align = nn.ModuleDict()
        for level, (there, here) in config.shapes(inputs.teacher, inputs.student).items():
            adapter = neck_aligner(here, there) if level == NECK else stage_aligner("upsample-conv", here, there)
            self.align[level] = adapter
        self.mimic = config.mimic(inputs.teacher)

    def forward(self, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses:
        """All in float32, whatever precision the detectors ran in."""
        config = self.config
        with torch.autocast(student.neck.device.type, enabled=False):
            teacher_maps = {level: m.detach() for level, m in config.maps(teacher, config.teacher_stages).items()}
            student_maps = config.maps(student, config.student_stages)
            aligned = {level: align(student_maps[level]) for level, align in self.align.items()}
            losses = self.mimic(teacher_maps, aligned, teacher.predictions, targets)
        return {f"mfd/{name}": loss for name, loss in losses.items()}

    no_weight_decay = no_weight_decay  # the function of `align` as a method
