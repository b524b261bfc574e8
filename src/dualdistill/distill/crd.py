"""Cross-head response distillation (CRD): what would the teacher's own head say of the student's map?

Source: docs/methods/dualdistill.md#response-distillation.
The frozen teacher head reads the aligned student map and must find the boxes
that the teacher found in its own; the student's head is not involved.

Differs from the released code in that pseudo boxes are decoded in float32 and ranked by untempered scores:
there the sharpened scores saturate and tie, so that suppression among confident boxes is arbitrary
(docs/methods/dualdistill.md#pseudo-boxes).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dualdistill.structures import BevOutput, Boxes, HeadOutput, Losses, Targets

CrdLabels = Literal["teacher", "ground_truth"]
"""Boxes to be found: the teacher's confident detections, or (ablation) the annotations."""

RESPONSES = ("heatmap", "box/xy", "box/z", "box/size", "box/yaw", "box/velocity")
"""Names of the losses a judge returns."""


@runtime_checkable
class HeadCriterion(Protocol):
    """The teacher's side of detection, as plain functions under its own head settings; the teacher detector
    provides it.

    Not a module, and holding none: a distiller that owned the teacher would train and save it.
    """

    def pseudo_boxes(self, predictions: HeadOutput, temperature: float) -> tuple[Boxes, ...]:
        """Detections of each sample after suppression, decoded in float32; velocities in m/s.

        Args:
            temperature: Divides the logits for the score threshold only; below 1, fewer and surer boxes pass.
        """

    def losses(self, predictions: HeadOutput, boxes: tuple[Boxes, ...]) -> Losses:
        """The unweighted losses `RESPONSES` of predictions that should have been `boxes` (velocities in
        m/s, NaN where unknown; no box at all is legal)."""

    def losses_of_features(
        self, head: Callable[[Tensor], HeadOutput], neck: Float[Tensor, "batch chan y x"], boxes: tuple[Boxes, ...]
    ) -> Losses:
        """`losses` of what the teacher's head says of another map; it need not say more than they look at."""


def cross_head_losses(
    teacher: BevOutput,
    aligned_neck: Float[Tensor, "batch chan y x"],
    targets: Targets,
    judge: HeadCriterion,
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
            found = judge.pseudo_boxes(teacher.predictions, temperature)
        boxes = tuple(replace(each, score=None) for each in found)
    return judge.losses_of_features(teacher.head, aligned_neck, boxes)


def response_weights(*, heatmap: float, box: float, velocity: float) -> dict[str, float]:
    """Weights of `RESPONSES`; `velocity` comes on top of `box`."""
    return {"heatmap": heatmap} | {
        name: box * velocity if name == "box/velocity" else box for name in RESPONSES if name != "heatmap"
    }
