"""Pure functions that several methods share, float32 in, float32 out: attention maps, difference terms, responses.

Sources: docs/methods/dualdistill.md#attention-maps and docs/methods/dualdistill.md#feature-losses (the same formulas as
DistillBEV's, docs/methods/distillbev.md#losses); for the predictions of two heads and the losses of a head criterion,
docs/methods/labeldistill.md#response-losses and docs/methods/x3kd.md#output-distillation.
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dualdistill.ops.integers import constant
from dualdistill.ops.processes import mean_count
from dualdistill.structures import TASK_OF_CLASS, HeadOutput, Targets

RESPONSES = ("heatmap", "box/xy", "box/z", "box/size", "box/yaw", "box/velocity")
"""Names of the losses a head criterion returns."""


@torch.no_grad()
def spatial_attention(features: Float[Tensor, "batch chan y x"], temperature: float) -> Float[Tensor, "batch 1 y x"]:
    """Spatial attention: softmax over cells of the mean magnitude over channels. Averages 1; no gradient."""
    batch, _, height, width = features.shape
    strength = features.abs().mean(dim=1).flatten(1) / temperature
    return strength.softmax(dim=1).view(batch, 1, height, width) * (height * width)


@torch.no_grad()
def channel_attention(features: Float[Tensor, "batch chan y x"], temperature: float) -> Float[Tensor, "batch chan 1 1"]:
    """Channel attention: softmax over channels of the mean magnitude over cells. Averages 1; no gradient."""
    strength = features.abs().mean(dim=(2, 3), keepdim=True) / temperature
    return strength.softmax(dim=1) * features.shape[1]


@torch.no_grad()
def attended_square(
    features: Float[Tensor, "batch chan y x"],
    weight: Float[Tensor, "batch 1 y x"],
    attention: Float[Tensor, "batch 1 y x"],
) -> Float[Tensor, ""]:
    """Sum of the squares of a map, mean over channels, over cells by weight and attention, for each unit of weight;
    1 where there is none. No gradient."""
    squares = features.square().mean(dim=1, keepdim=True) * weight * attention
    total, area = mean_count(squares.sum()), mean_count(weight.sum())
    return torch.where(area > 0, total / area.clamp(min=1e-6), 1.0).clamp(min=1e-6)


def compare_maps(
    aligned: Float[Tensor, "batch chan y x"],
    teacher: Float[Tensor, "batch chan y x"],
    cell_weights: Float[Tensor, "batch region y x"],
    channel_weights: Float[Tensor, "batch region chan"],
) -> tuple[Float[Tensor, "region"], Float[Tensor, "batch 1 y x"]]:
    """Weighted squared difference of two maps for several regions at once, and the channel mean of `aligned`.

    Summed over channels and cells by both weights, mean over the batch.

    The difference is squared once for all regions, its weights are matrix products of rank `region`, and backward
    writes one map. The gradient goes to `aligned` alone.
    """
    return _CompareMaps.apply(aligned, teacher, cell_weights, channel_weights)


class _CompareMaps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, aligned: Tensor, teacher: Tensor, cell_weights: Tensor, channel_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(aligned, teacher, cell_weights, channel_weights)
        squares = _difference(aligned, teacher).square_()
        per_cell = channel_weights @ squares.flatten(2)  # batch region cells
        losses = (per_cell * cell_weights.flatten(2)).sum(dim=(0, 2)) / len(aligned)
        return losses, aligned.mean(dim=1, keepdim=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, losses_grad: Tensor, mean_grad: Tensor) -> tuple[Tensor, None, None, None]:
        aligned, teacher, cell_weights, channel_weights = ctx.saved_tensors
        cells = cell_weights.flatten(2) * (2 / len(aligned) * losses_grad[:, None])  # batch region cells
        if _channels_last(aligned):
            weight = (cells.mT @ channel_weights).mT.unflatten(2, aligned.shape[2:])
        else:
            weight = (channel_weights.mT @ cells).unflatten(2, aligned.shape[2:])
        gradient = _difference(aligned, teacher).mul_(weight)
        return gradient.add_(mean_grad / aligned.shape[1]), None, None, None


def _difference(aligned: Tensor, teacher: Tensor) -> Tensor:
    """In the memory layout of `aligned`: arithmetic across two layouts costs ten times as much."""
    if _channels_last(aligned) != _channels_last(teacher):
        layout = torch.channels_last if _channels_last(aligned) else torch.contiguous_format
        teacher = teacher.contiguous(memory_format=layout)
    return aligned - teacher


def _channels_last(features: Tensor) -> bool:
    return features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous()


def balanced_mean(error: Float[Tensor, "batch _ y x"], mask: Bool[Tensor, "batch 1 y x"]) -> Float[Tensor, ""]:
    """Half the mean over the cells of the mask, half that over the others; a half without cells is 0."""
    cells = error.mean(dim=1, keepdim=True)
    inside = (cells * mask).sum() / mean_count(mask.sum(), at_least=1)
    outside = (cells * ~mask).sum() / mean_count((~mask).sum(), at_least=1)
    return (inside + outside) / 2


def response_weights(*, heatmap: float, box: float, velocity: float) -> dict[str, float]:
    """Weights of `RESPONSES`; `velocity` comes on top of `box`."""
    return {"heatmap": heatmap} | {
        name: box * velocity if name == "box/velocity" else box for name in RESPONSES if name != "heatmap"
    }


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
        regression[:, :, 8:10] *= targets.velocity_scale[:, None, None, None, None]  # the codes of velocities
    return replace(teacher, heatmap=teacher.heatmap.detach().float(), regression=regression)
