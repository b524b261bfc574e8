"""Targets of a CenterPoint head (Gaussian heat maps, and ten numbers for the cell of each centre) and its losses.

Source: docs/methods/centerpoint.md#targets, docs/methods/centerpoint.md#losses (the mmdetection3d variant). Differs
from the released code in one place: the cell of a centre is found by `floor`. There it is truncated toward zero, so
that a box whose centre lies up to one cell below the lower edge of the map is pulled into its first row or column.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.ops.focal import gaussian_focal, probability
from dualdistill.ops.integers import constant
from dualdistill.ops.processes import mean_count
from dualdistill.structures import TASK_OF_CLASS, Boxes, CenterTargets, HeadOutput, Losses


@torch.no_grad()
def center_targets(
    boxes: tuple[Boxes, ...],
    grid: BevGrid,
    config: CenterHeadConfig,
    *,
    velocity_scale: Float[Tensor, "batch"] | None = None,
) -> CenterTargets:
    """Targets of a batch.

    Boxes of a task fill its slots in the order of its classes, then of the annotations. Boxes centred outside
    the map, without extent, or past `max_objects` leave no trace.

    Args:
        boxes: Of each sample, in the frame of the maps; labels below the number of the head's classes.
        grid: Of the head's maps.
        velocity_scale: Factor of the target velocities, per sample (the frame gap, for displacements).
    """
    tasks, classes = len(config.task_classes), sum(config.task_classes)
    every = Boxes.concatenate([replace(each, score=None) for each in boxes] or [Boxes.empty()])
    device = every.center.device
    counts = constant([len(each) for each in boxes], device, torch.long)
    sample = torch.repeat_interleave(torch.arange(len(boxes), device=device), counts, output_size=sum(map(len, boxes)))
    order = torch.argsort(sample * classes + every.label.long(), stable=True)
    sample, every = sample[order], every.select(order)
    label, center, size = every.label.long(), every.center.float(), every.size.float()
    yaw, velocity = every.yaw.float(), every.velocity.float()
    if velocity_scale is not None:
        velocity = velocity * velocity_scale[sample, None]

    # Sorted by sample and class, so also by sample and task: a box's slot is its distance from its group's first box.
    group = sample * tasks + constant(config.task_of_class, device)[label]
    slot = torch.arange(len(group), device=device) - torch.searchsorted(group, group)
    coordinates = grid.coordinates(center[:, :2])
    cell = coordinates.floor().long()
    used = grid.inside(cell) & (size > 0).all(dim=1) & (slot < config.max_objects)

    vector = torch.cat(
        [coordinates - cell, center[:, 2:], size.log(), yaw.sin()[:, None], yaw.cos()[:, None], velocity], dim=1
    )
    slots = min(config.max_objects, max(map(len, boxes), default=0))
    shape = (len(boxes), tasks, slots)
    # Boxes not used go to one slot past the end, which is cut off: no boolean indexing, no wait for the device.
    place = torch.where(used, group * slots + slot, len(boxes) * tasks * slots)

    def packed(values: Tensor) -> Tensor:
        room = values.new_zeros(len(boxes) * tasks * slots + 1, *values.shape[1:])
        return room.index_copy(0, place, values)[:-1].unflatten(0, shape)

    radius = gaussian_radius(size[:, 0] / grid.cell, size[:, 1] / grid.cell, config.gaussian_overlap)
    radius = radius.nan_to_num().int().clamp(min=config.min_radius)
    maps = torch.zeros(len(boxes), classes, *grid.shape, device=device)
    heatmap = draw_gaussians(maps.flatten(0, 1), sample * classes + label, cell, torch.where(used, radius, -1))
    return CenterTargets(
        heatmap=heatmap.view_as(maps),
        index=packed(cell[:, 1] * grid.width + cell[:, 0]),
        mask=packed(used),
        vector=packed(vector),
    )


def gaussian_radius(
    length_cells: Float[Tensor, "boxes"], width_cells: Float[Tensor, "boxes"], overlap: float
) -> Float[Tensor, "boxes"]:
    """CornerNet's radius, cells, as all CenterPoint code computes it.

    The three cases are roots of quadratics, each missing its division by 2a. Kept, since every published
    weight was trained so; the third is the smallest in practice.
    """
    total, area = length_cells + width_cells, length_cells * width_cells
    corner_each_way = (total + (total**2 - 4 * area * (1 - overlap) / (1 + overlap)).sqrt()) / 2
    inside = (2 * total + (4 * total**2 - 16 * (1 - overlap) * area).sqrt()) / 2
    outside = (-2 * overlap * total + (4 * overlap**2 * total**2 + 16 * overlap * (1 - overlap) * area).sqrt()) / 2
    return torch.stack([corner_each_way, inside, outside]).amin(dim=0)


def draw_gaussians(
    maps: Float[Tensor, "maps y x"],
    map_index: Int[Tensor, "boxes"],
    cell: Int[Tensor, "boxes 2"],
    radius: Int[Tensor, "boxes"],
) -> Float[Tensor, "maps y x"]:
    """Maximum of `maps` and a Gaussian patch of each box: (2 radius + 1)² cells, sigma a sixth of that side, peak 1.

    Args:
        cell: (column, row) of each peak.
        radius: Negative for a box that is not drawn.
    """
    count, height, width = maps.shape
    # No further than the map: an untrained teacher may predict boxes of any size.
    reach = min(int(radius.max()), max(height, width)) if len(radius) else -1
    if reach < 0:
        return maps.clone()
    offset = torch.arange(-reach, reach + 1, device=maps.device)
    x = cell[:, 0, None] + offset  # boxes window
    y = cell[:, 1, None] + offset
    near = offset.abs() <= radius[:, None]
    column = near & (x >= 0) & (x < width)
    row = near & (y >= 0) & (y < height)
    spread = 2 * ((2 * radius[:, None] + 1) / 6) ** 2
    profile = torch.exp(-(offset**2) / spread)
    patch = (profile * row)[:, :, None] * (profile * column)[:, None, :]
    index = (map_index[:, None, None] * height + y[:, :, None]) * width + x[:, None, :]
    index = torch.where(row[:, :, None] & column[:, None, :], index, 0)  # the patch is zero there: no trace
    flat = maps.flatten().scatter_reduce(0, index.flatten(), patch.flatten(), "amax")
    return flat.view(count, height, width)


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
