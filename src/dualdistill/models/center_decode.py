"""From the maps of a CenterPoint head to boxes. Source: docs/methods/centerpoint.md#decoding and
docs/methods/dualdistill.md#pseudo-boxes."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dualdistill.geometry.boxes import footprints
from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.ops.nms import circle_nms, rotated_nms, scale_nms
from dualdistill.structures import TASKS, Boxes, HeadOutput


@torch.no_grad()
def decode(
    output: HeadOutput, grid: BevGrid, config: CenterHeadConfig, *, temperature: float = 1.0
) -> tuple[Boxes, ...]:
    """Detections of each sample: task after task, by falling score within a task; velocities in the head's
    unit.

    Each class offers its best `max_candidates` cells, a task takes as many of these; they must score above
    the threshold, be centred in range, and survive suppression among the boxes of their task. (No
    local-maximum filter.)

    Args:
        grid: Of the maps.
        temperature: Divides the logits, but only for the threshold: below 1, fewer and surer boxes pass.
            Rank, suppression and the scores returned are those at temperature 1. The released code sharpens
            first, and its saturated scores tie; apart from the order of ties the boxes are the same.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    threshold = temperature * math.log(config.score_threshold / (1 - config.score_threshold))
    found: list[list[Boxes]] = [[] for _ in range(len(output.heatmap))]
    first_label = 0
    for task, classes in enumerate(config.task_classes):
        logits = output.heatmap[:, first_label : first_label + classes].detach().float()
        logit, klass, cell = _best_cells(logits, config.max_candidates)
        codes = output.regression[:, task].detach().flatten(2)  # batch code cells
        codes = codes.gather(2, cell[:, None].expand(-1, codes.shape[1], -1)).mT.float()  # batch candidates code
        for sample, kept in enumerate(found):
            boxes = _as_boxes(codes[sample], cell[sample], first_label + klass[sample], logit[sample].sigmoid(), grid)
            boxes = boxes.select((logit[sample] > threshold) & _in_range(boxes, config))
            kept.append(boxes.select(_survivors(boxes, task, config)))
        first_label += classes
    return tuple(_concatenated(parts) for parts in found)


def _best_cells(
    logits: Float[Tensor, "batch klass y x"], count: int
) -> tuple[Float[Tensor, "batch candidates"], Int[Tensor, "batch candidates"], Int[Tensor, "batch candidates"]]:
    """Logit, class within the task and cell of the candidates; one cell may stand for several classes."""
    per_class, cells = logits.flatten(2).topk(min(count, logits[0, 0].numel()), dim=2)  # batch klass count
    best, position = per_class.flatten(1).topk(min(count, per_class[0].numel()), dim=1)
    return best, position // per_class.shape[2], cells.flatten(1).gather(1, position)


def _as_boxes(
    codes: Float[Tensor, "candidates 10"],
    cell: Int[Tensor, "candidates"],
    label: Int[Tensor, "candidates"],
    score: Float[Tensor, "candidates"],
    grid: BevGrid,
) -> Boxes:
    column_row = torch.stack([cell % grid.width, cell // grid.width], dim=1)
    xy = (column_row + codes[:, :2]) * grid.cell + codes.new_tensor([grid.x_min, grid.y_min])
    return Boxes(
        center=torch.cat([xy, codes[:, 2:3]], dim=1),
        size=codes[:, 3:6].exp(),
        yaw=torch.atan2(codes[:, 6], codes[:, 7]),
        velocity=codes[:, 8:10],
        label=label,
        score=score,
    )


def _in_range(boxes: Boxes, config: CenterHeadConfig) -> Tensor:
    low, high = boxes.center.new_tensor(config.center_range).view(2, 3)
    return ((boxes.center >= low) & (boxes.center <= high)).all(dim=1)


def _survivors(boxes: Boxes, task: int, config: CenterHeadConfig) -> Int[Tensor, "survivors"]:
    """Indices of the boxes of a task that no better one suppresses, by falling score."""
    assert boxes.score is not None
    if config.nms == "circle" or (config.nms == "scale" and TASKS[task] == ("barrier",)):
        radius = config.circle_squared_radii[task]
        return circle_nms(boxes.center[:, :2], boxes.score, radius, config.nms_survivors)
    rectangles, limits = footprints(boxes), (config.nms_candidates, config.nms_survivors)
    if config.nms == "rotated":
        return rotated_nms(rectangles, boxes.score, config.iou_threshold, *limits)
    factors = rectangles.new_tensor(config.scale_factors)[boxes.label]
    return scale_nms(rectangles, boxes.score, factors, config.scale_iou_thresholds[task], *limits)


def _concatenated(parts: list[Boxes]) -> Boxes:
    return Boxes(
        center=torch.cat([part.center for part in parts]),
        size=torch.cat([part.size for part in parts]),
        yaw=torch.cat([part.yaw for part in parts]),
        velocity=torch.cat([part.velocity for part in parts]),
        label=torch.cat([part.label for part in parts]),
        score=torch.cat([part.score for part in parts if part.score is not None]),
    )
