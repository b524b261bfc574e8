"""DualDistill's losses computed the way the released code computes them, on the parameters of our distiller.

Source: docs/methods/dualdistill.md. Maps are enlarged before they are projected; the projector comes from
Householder reflections; object masks are drawn box by box in NumPy, for each sample and level; each region's loss
squares the difference anew; the teacher's head is evaluated everywhere, all 36 branches.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dualdistill.distill.align import Aoa, householder
from dualdistill.distill.dualdistill import NECK, DualDistill
from dualdistill.distill.method import HeadCriterion
from dualdistill.distill.mfd import LevelMimic, RegionConfig, false_positives
from dualdistill.geometry.grid import BevGrid
from dualdistill.structures import BevOutput, Boxes, Losses, Targets


def released_losses(distiller: DualDistill, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses:
    """What `distiller` returns for its default configuration, as long as its projectors are where they started."""
    mfd, crd, mimic = distiller.config.mfd, distiller.config.crd, distiller.mimic
    assert mfd is not None
    assert mfd.false_positives is not None
    assert crd is not None
    assert mimic is not None
    assert distiller.criterion is not None
    theirs = {level: m.float() for level, m in mfd.maps("teacher", teacher).items()}
    ours = {level: m.float() for level, m in mfd.maps("student", student).items()}
    losses: Losses = {}
    aligned = {**ours}
    for level, here in ours.items():
        align = distiller.align[level]
        aligned[level] = _aoa(align, here) if isinstance(align, Aoa) else align(here)
        scale = _object_scale(targets.boxes, mimic.grids[level]).to(here.device)
        unfounded = torch.zeros_like(scale, dtype=torch.bool)
        if level in mfd.false_positives.levels:
            unfounded = false_positives(targets.heatmap, teacher.predictions.heatmap, scale > 0)
        part = mimic.levels[level]
        assert isinstance(part, LevelMimic)
        terms = _level(part, mfd.regions, theirs[level].detach(), aligned[level], scale, unfounded)
        losses |= {
            f"mfd/{level}/{name}": terms[name] for name in terms if f"mfd/{level}/{name}" in distiller.config.weights
        }
    responses = _responses(teacher, aligned[NECK], distiller.criterion, crd.temperature)
    return losses | {f"crd/{name}": loss for name, loss in responses.items()}


def _aoa(align: Aoa, features: Tensor) -> Float[Tensor, "batch chan y x"]:
    projector = align.projector
    outputs, inputs = projector.raw.shape
    raw = -torch.eye(
        max(inputs, outputs), min(inputs, outputs), device=features.device
    )  # where the released one starts
    frame = projector.base @ householder(raw.requires_grad_())
    weight = projector.gain[:, None] * (frame.mT if outputs < inputs else frame)
    large = F.interpolate(align.attention(features), align.size, mode="bilinear", align_corners=True)
    return F.linear(large.movedim(1, -1), weight, projector.bias).movedim(-1, 1)


def _object_scale(boxes: tuple[Boxes, ...], grid: BevGrid) -> Float[Tensor, "batch 1 y x"]:
    """1 / sqrt(area in cells) in the cells of objects, the first box first; 0 elsewhere."""
    x = grid.x_min + (np.arange(grid.width) + 0.5) * grid.cell
    y = grid.y_min + (np.arange(grid.height)[:, None] + 0.5) * grid.cell
    scales = np.zeros((len(boxes), 1, grid.height, grid.width), dtype=np.float32)
    for scale, sample in zip(scales, boxes, strict=True):
        centers, sizes, yaws = (
            np.asarray(part.cpu(), dtype=np.float64) for part in (sample.center, sample.size, sample.yaw)
        )
        for center, size, yaw in reversed([*zip(centers, sizes, yaws, strict=True)]):
            cos, sin = math.cos(yaw), math.sin(yaw)
            dx, dy = x - center[0], y - center[1]
            inside = (np.abs(dx * cos + dy * sin) <= size[0] / 2) & (np.abs(dy * cos - dx * sin) <= size[1] / 2)
            scale[0][inside] = grid.cell / math.sqrt(size[0] * size[1])
    return torch.from_numpy(scales)


def _level(
    part: LevelMimic, config: RegionConfig, teacher: Tensor, aligned: Tensor, scale: Tensor, unfounded: Tensor
) -> Losses:
    batch, chan, height, width = teacher.shape
    objects = (scale > 0).float()
    negatives = 1 - objects - unfounded.float()
    both = torch.maximum(scale, 1 / negatives.sum(dim=(2, 3), keepdim=True))
    attention = torch.zeros_like(scale)
    for features in (teacher, aligned.detach()):
        strength = (features.abs().mean(dim=1) / config.spatial_temperature).flatten(1).softmax(dim=1)
        attention = attention + strength.view(batch, 1, height, width) * height * width / 2
    assert part.channel_temperature is not None
    channels = (teacher.abs().mean(dim=(2, 3), keepdim=True) / part.channel_temperature).softmax(dim=1) * chan
    share = unfounded / unfounded.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    return {
        "foreground": ((aligned - teacher) ** 2 * objects * both * attention).sum() / batch,
        "background": ((aligned - teacher) ** 2 * negatives * both * attention).sum() / batch,
        "false_positive": ((aligned - teacher) ** 2 * share * attention * channels).sum() / batch,
        "spatial": (teacher.mean(1, keepdim=True) - part.spatial(aligned.mean(1, keepdim=True))).abs().sum() / batch,
    }


def _responses(teacher: BevOutput, aligned: Tensor, criterion: HeadCriterion, temperature: float) -> Losses:
    boxes = criterion.pseudo_boxes(teacher.predictions, temperature)
    return criterion.losses_of_features(lambda features: teacher.head(features), aligned, boxes)
