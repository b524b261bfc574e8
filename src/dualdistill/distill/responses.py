"""Predictions of two heads for one scene, made comparable: sums by task, velocities in one unit.

Source: docs/methods/labeldistill.md#response-losses
and docs/methods/x3kd.md#output-distillation (both use CenterPoint's focal loss, against a softer truth).
"""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from dualdistill.ops.constants import constant
from dualdistill.structures import TASK_OF_CLASS, HeadOutput, Targets

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
