"""Decoding of the maps of a CenterPoint head to boxes.

Source: docs/methods/centerpoint.md#decoding and docs/methods/dualdistill.md#pseudo-boxes.
"""

import math
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dualdistill.geometry.boxes import footprints
from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.ops.integers import constant
from dualdistill.ops.nms import circle_nms, rotated_nms
from dualdistill.structures import TASKS, Boxes, HeadOutput

_BARRIERS = TASKS.index(("barrier",))


@torch.no_grad()
def decode(
    output: HeadOutput, grid: BevGrid, config: CenterHeadConfig, *, temperature: float = 1.0
) -> tuple[Boxes, ...]:
    """Detections of each sample: task after task, by falling score within a task; velocities in the head's unit.

    Each class offers its best `max_candidates` cells, a task takes as many of these; they must score above
    the threshold, be centred in range, and survive suppression among the boxes of their task. (No
    local-maximum filter.) All samples and tasks are decoded together: on a GPU the host waits some ten to twenty times.

    Args:
        grid: Grid of the maps.
        temperature: Divides the logits, but only for the threshold: below 1, fewer and more confident boxes pass.
            Rank, suppression and the scores returned are those at temperature 1. The released code sharpens
            first, and its saturated scores tie; apart from the order of ties the boxes are the same.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    threshold = temperature * math.log(config.score_threshold / (1 - config.score_threshold))
    samples, tasks, center_range = len(output.heatmap), len(config.task_classes), config.center_range
    logit, boxes = _candidates(output, grid, config)
    low, high = (constant(bounds, logit.device, boxes.center.dtype) for bounds in (center_range[:3], center_range[3:]))
    in_range = ((boxes.center >= low) & (boxes.center <= high)).all(dim=1)
    kept = ((logit > threshold) & in_range).nonzero().squeeze(1)
    boxes, group = boxes.select(kept), kept // config.max_candidates
    survivors = _survivors(boxes, group, config)
    boxes, group = boxes.select(survivors), group.index_select(0, survivors)
    first = torch.arange(0, (samples + 1) * tasks, tasks, device=group.device)
    ends = torch.searchsorted(group, first).tolist()
    return tuple(boxes.select(slice(*bounds)) for bounds in pairwise(ends))


def _candidates(output: HeadOutput, grid: BevGrid, config: CenterHeadConfig) -> tuple[Float[Tensor, "boxes"], Boxes]:
    """Logits and boxes of the best cells: sample after sample, in it task after task, by falling score.

    Every task offers `config.max_candidates` cells; where the map has fewer, the others have a logit of minus infinity.
    """
    offers = []
    for task, (first, last) in enumerate(pairwise(accumulate(config.task_classes, initial=0))):
        logit, klass, cell = _best_cells(output.heatmap[:, first:last].detach().float(), config.max_candidates)
        codes = output.regression[:, task].detach().flatten(2)  # batch code cells
        codes = codes.gather(2, cell[:, None].expand(-1, codes.shape[1], -1)).float()  # batch code count
        offers.append((logit, first + klass, cell, *codes.unbind(dim=1)))
    columns = [torch.stack(parts, dim=1).flatten() for parts in zip(*offers, strict=True)]
    logit, label, cell = columns[:3]
    return logit, _as_boxes(columns[3:], cell, label, logit.sigmoid(), grid)


def _best_cells(
    logits: Float[Tensor, "batch klass y x"], count: int
) -> tuple[Float[Tensor, "batch count"], Int[Tensor, "batch count"], Int[Tensor, "batch count"]]:
    """Logit, class within the task and cell of the best cells; one cell may stand for several classes."""
    per_class, cells = logits.flatten(2).topk(min(count, logits[0, 0].numel()), dim=2)  # batch klass cells
    missing = max(0, count - per_class[0].numel())
    best, position = functional.pad(per_class.flatten(1), (0, missing), value=-math.inf).topk(count, dim=1)
    cell = functional.pad(cells.flatten(1), (0, missing)).gather(1, position)
    return best, position // per_class.shape[2], cell


def _as_boxes(
    codes: list[Float[Tensor, "boxes"]],
    cell: Int[Tensor, "boxes"],
    label: Int[Tensor, "boxes"],
    score: Float[Tensor, "boxes"],
    grid: BevGrid,
) -> Boxes:
    """Boxes from the ten codes of their cells."""
    x, y, z, length, width, height, sin, cos, vx, vy = codes
    x = (cell % grid.width + x) * grid.cell + grid.x_min
    y = (cell // grid.width + y) * grid.cell + grid.y_min
    return Boxes(
        center=torch.stack([x, y, z], dim=1),
        size=torch.stack([length, width, height], dim=1).exp(),
        yaw=torch.atan2(sin, cos),
        velocity=torch.stack([vx, vy], dim=1),
        label=label,
        score=score,
    )


def _survivors(boxes: Boxes, group: Int[Tensor, "boxes"], config: CenterHeadConfig) -> Int[Tensor, "survivors"]:
    """Indices of the boxes that no better one of their group (sample times the number of tasks, plus task) suppresses.
    Boxes and survivors come group after group, in each by falling score."""
    assert boxes.score is not None
    rectangles, score, task = footprints(boxes), boxes.score, group % len(config.task_classes)
    limits = (config.nms_candidates, config.nms_survivors)
    if config.nms == "rotated":
        return rotated_nms(rectangles, score, config.iou_threshold, *limits, group)
    radius = constant(config.circle_squared_radii, task.device)[task]
    if config.nms == "circle":
        return circle_nms(rectangles[:, :2], score, radius, config.nms_survivors, group)
    barrier = task == _BARRIERS
    near, rest = barrier.nonzero().squeeze(1), (~barrier).nonzero().squeeze(1)
    factor = constant(config.scale_factors, task.device)[boxes.label[rest]]
    threshold = constant(config.scale_iou_thresholds, task.device)[task[rest]]
    survivors = (
        near[circle_nms(rectangles[near, :2], score[near], radius[near], config.nms_survivors, group[near])],
        rest[rotated_nms(rectangles[rest], score[rest], threshold, *limits, group[rest], factor)],
    )
    return torch.cat(survivors).sort().values
