"""Training losses of a CenterPoint head. Source: docs/methods/centerpoint.md#losses (the mmdetection3d variant)."""

import torch
from jaxtyping import Float
from torch import Tensor

from dualdistill.ops.focal import gaussian_focal, probability
from dualdistill.ops.integers import constant
from dualdistill.ops.processes import mean_count
from dualdistill.structures import TASK_OF_CLASS, CenterTargets, HeadOutput, Losses

GROUPS = {"box/xy": 2, "box/z": 1, "box/size": 3, "box/yaw": 2, "box/velocity": 2}
"""Losses of the regressed codes and how many codes each covers; in code order."""


def center_losses(
    output: HeadOutput, targets: CenterTargets | None, task_of_class: tuple[int, ...] = TASK_OF_CLASS
) -> Losses:
    """Unweighted losses, each the sum over the tasks, in float32.

    "heatmap": Gaussian focal loss of a task over all its cells, divided by its number of peaks in the batch (at least
    1). "box/...": absolute errors of a group of codes, summed and divided by the task's number of boxes in the batch
    (plus 1e-4). Velocities not known (NaN) do not count; their boxes still do in the divisor. In distributed training
    both numbers are those of the whole batch, see `ops.processes`. Raises ValueError for no targets.
    """
    if targets is None:
        raise ValueError("the head's losses need targets.center, got None: take the targets of this detector")
    batch, tasks, codes, *_ = output.regression.shape
    index = targets.index[:, :, None, :].expand(batch, tasks, codes, -1)
    predicted = output.regression.flatten(3).gather(3, index).mT  # batch task slot code
    return losses_in_cells(output.heatmap, predicted, targets, task_of_class)


def losses_in_cells(
    heatmap: Float[Tensor, "batch klass y x"],
    predicted: Float[Tensor, "batch task slot code"],
    targets: CenterTargets,
    task_of_class: tuple[int, ...] = TASK_OF_CLASS,
) -> Losses:
    """`center_losses` of heat map logits, and of codes read in the cells of the targets' slots."""
    tasks = predicted.shape[1]
    task = constant(task_of_class, heatmap.device)
    focal = gaussian_focal(probability(heatmap), targets.heatmap).sum(dim=(0, 2, 3))  # klass
    peaks = (targets.heatmap == 1).sum(dim=(0, 2, 3)).float()
    per_task = focal.new_zeros(2, tasks).index_add(1, task, torch.stack([focal, peaks]))
    losses = {"heatmap": (per_task[0] / mean_count(per_task[1], at_least=1)).sum()}

    known = targets.mask[..., None] & ~targets.vector.isnan()
    # Chosen before the difference: a NaN that is only masked afterwards still poisons the gradient.
    error = torch.where(known, predicted.float() - targets.vector.where(known, 0.0), 0.0).abs().sum(dim=(0, 2))
    error = error / mean_count(targets.mask.sum(dim=(0, 2)), plus=1e-4)[:, None]  # task code
    groups = error.sum(dim=0).split(tuple(GROUPS.values()))
    return losses | {name: group.sum() for name, group in zip(GROUPS, groups, strict=True)}
