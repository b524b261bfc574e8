"""Cross-head response distillation (CRD): the teacher's head must find the teacher's boxes in the student's map.

Source: DualDistill, BMVC 2025; docs/methods/dualdistill.md#response-distillation. The frozen teacher head reads the
aligned student map; the student's head is not involved.

Differs from the released code in that pseudo boxes are decoded in float32 and ranked by untempered scores:
there the sharpened scores saturate and tie, so that suppression among confident boxes is arbitrary
(docs/methods/dualdistill.md#pseudo-boxes).
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dualdistill.distill.criterion import HeadCriterion, response_weights
from dualdistill.distill.method import check_no_effect
from dualdistill.settings import NonNegative, Positive, checked
from dualdistill.structures import BevOutput, Losses, Targets

CrdLabels = Literal["teacher", "ground_truth"]
"""Boxes to be found: the teacher's confident detections, or (ablation) the annotations."""


@dataclass(frozen=True, kw_only=True)
@checked
class CrdConfig:
    """Settings of response distillation; the defaults are the released ones."""

    labels: CrdLabels = "teacher"
    temperature: Positive = 0.1
    """Sets the score threshold of the teacher's boxes: with its 0.1, boxes above a probability of 0.445 are labels."""
    heatmap_weight: NonNegative = 1.0
    box_weight: NonNegative = 0.25
    velocity_weight: NonNegative = 0.2
    """On top of `box_weight`, as the teacher was trained."""

    def __post_init__(self) -> None:
        if self.labels == "ground_truth":
            check_no_effect(self, "the labels are the annotations", ("temperature",))

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every loss of `cross_head_losses` by name."""
        return response_weights(heatmap=self.heatmap_weight, box=self.box_weight, velocity=self.velocity_weight)


def cross_head_losses(
    teacher: BevOutput,
    aligned_neck: Float[Tensor, "batch chan y x"],
    targets: Targets,
    criterion: HeadCriterion,
    *,
    labels: CrdLabels = "teacher",
    temperature: float = 0.1,
) -> Losses:
    """Losses `RESPONSES` of the teacher's head on the student's aligned map (float32).

    The gradient goes through the frozen head into the map. Pseudo boxes lose their scores: all count alike.
    """
    if labels == "ground_truth":
        boxes = targets.boxes
    else:
        with torch.no_grad():
            found = criterion.pseudo_boxes(teacher.predictions, temperature)
        boxes = tuple(replace(each, score=None) for each in found)
    return criterion.losses_of_features(teacher.head, aligned_neck, boxes)
