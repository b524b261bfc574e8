"""What two heads answer to one scene, compared: probabilities, focal loss, sums task by task.

Source: docs/methods/labeldistill.md#response-losses
and docs/methods/x3kd.md#output-distillation (both use CenterPoint's focal loss, against a softer truth).
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from dualdistill.distill.regions import PROBABILITY_FLOOR
from dualdistill.structures import TASKS, HeadOutput, Targets

TASK_OF_CLASS = tuple(task for task, names in enumerate(TASKS) for _ in names)
"""Index into `TASKS` of each class."""
VELOCITY = slice(8, 10)
"""Codes of the velocity in `HeadOutput.regression`."""


def probability(logits: Float[Tensor, "batch klass y x"]) -> Float[Tensor, "batch klass y x"]:
    """Float32, kept off 0 and 1: no gradient comes from a cell as sure as that."""
    return logits.float().sigmoid().clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)


def gaussian_focal(probability: Float[Tensor, "*cells"], target: Float[Tensor, "*cells"]) -> Float[Tensor, "*cells"]:
    """CornerNet's focal loss: a positive only where the target is exactly 1, else a negative, and the lesser
    the higher its target."""
    positive = -probability.log() * (1 - probability) ** 2
    negative = -(1 - probability).log() * probability**2 * (1 - target) ** 4
    return torch.where(target == 1, positive, negative)


def sum_by_task(per_class: Float[Tensor, "*batch klass"]) -> Float[Tensor, "*batch task"]:
    """Sums over the classes of each task."""
    task_of_class = torch.tensor(TASK_OF_CLASS, device=per_class.device)
    return per_class.new_zeros(*per_class.shape[:-1], len(TASKS)).index_add(-1, task_of_class, per_class)


def in_students_units(teacher: HeadOutput, targets: Targets) -> HeadOutput:
    """The teacher's answers in float32 and without gradient, their velocities (m/s) as the student's head says
    them."""
    regression = teacher.regression.detach().float().clone()
    if targets.velocity_scale is not None:
        regression[:, :, VELOCITY] *= targets.velocity_scale[:, None, None, None, None]
    return replace(teacher, heatmap=teacher.heatmap.detach().float(), regression=regression)
