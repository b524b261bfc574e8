"""The teacher's decoding and detection losses as plain functions for distillers, and predictions of two heads made
comparable: sums by task, velocities in one unit.

Source: docs/methods/labeldistill.md#response-losses and docs/methods/x3kd.md#output-distillation (both use
CenterPoint's focal loss, against a softer truth).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from dualdistill.ops.integers import constant
from dualdistill.structures import TASK_OF_CLASS, Boxes, HeadOutput, Losses, Targets

RESPONSES = ("heatmap", "box/xy", "box/z", "box/size", "box/yaw", "box/velocity")
"""Names of the losses a head criterion returns."""


@runtime_checkable
class HeadCriterion(Protocol):
    """Decoding and detection losses under the teacher head's settings; the teacher detector provides it.

    Not a module, and holding none: a distiller that owned the teacher would train and save it.
    """

    def pseudo_boxes(self, predictions: HeadOutput, temperature: float) -> tuple[Boxes, ...]:
        """Detections of each sample after suppression, decoded in float32; velocities in m/s. `temperature`: divides
        the logits for the score threshold only; below 1, fewer and surer boxes pass."""

    def losses_of_features(
        self, head: Callable[[Tensor], HeadOutput], neck: Float[Tensor, "batch chan y x"], boxes: tuple[Boxes, ...]
    ) -> Losses:
        """The unweighted losses `RESPONSES` of the head's predictions for a map, with `boxes` as truth (velocities in
        m/s, NaN where unknown; no box at all is legal). The head need not be evaluated where they have no terms."""


def response_weights(*, heatmap: float, box: float, velocity: float) -> dict[str, float]:
    """Weights of `RESPONSES`; `velocity` comes on top of `box`."""
    return {"heatmap": heatmap} | {
        name: box * velocity if name == "box/velocity" else box for name in RESPONSES if name != "heatmap"
    }


VELOCITY = slice(8, 10)
"""Codes of the velocity in `HeadOutput.regression`."""


def sum_by_task(
    per_class: Float[Tensor, "*batch klass"], task_of_class: tuple[int, ...] = TASK_OF_CLASS
) -> Float[Tensor, "*batch task"]:
    """Sums over the classes of each task; raises ValueError for another number of classes than `task_of_class` has."""
    if per_class.shape[-1] != len(task_of_class):
        raise ValueError(f"expected {len(task_of_class)} classes, got {per_class.shape[-1]}")
    tasks = max(task_of_class) + 1
    index = constant(task_of_class, per_class.device)
    return per_class.new_zeros(*per_class.shape[:-1], tasks).index_add(-1, index, per_class)


def in_students_units(teacher: HeadOutput, targets: Targets) -> HeadOutput:
    """The teacher's predictions in float32 and without gradient, with velocities (m/s) in the student head's unit."""
    regression = teacher.regression.detach().float().clone()
    if targets.velocity_scale is not None:
        regression[:, :, VELOCITY] *= targets.velocity_scale[:, None, None, None, None]
    return replace(teacher, heatmap=teacher.heatmap.detach().float(), regression=regression)
