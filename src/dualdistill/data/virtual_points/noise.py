"""Perfect masks with the errors of a real segmenter (docs/methods/mvp.md#imperfect-masks).

The errors are missed and misclassified objects, inaccurate outlines, scores below 1, and false positives. A mask is
warped by a smooth field. The visibility of an annotation is unknown, so only small objects are missed more often.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dualdistill.data.index import NuscenesIndex
from dualdistill.data.virtual_points.complete import generator_of
from dualdistill.data.virtual_points.masks import PAINT_CLASSES, ImageInstances, InstanceMasks

FULL_WIDTH = 1600
"""Image width, in pixels, to which the lengths below refer; they are scaled for other widths."""
SMALL_HEIGHT = 20.0
MISSED, MISSED_SMALL = 0.2, 0.4
"""Probability of missing an object, and of missing one lower than `SMALL_HEIGHT`."""
OUTLINE_SD = 3.0
"""Standard deviation of an outline, pixels."""
SCALE_RANGE = 0.1
"""Largest relative change of the size of a mask."""
CONFUSED = 0.05
"""Probability of confusing an object with another class of its group."""
GROUPS = (("car", "truck", "bus", "trailer", "construction_vehicle"), ("bicycle", "motorcycle"))
SCORE_BETA = (5.0, 2.0)
"""Beta distribution of the scores of real objects."""
FALSE_COUNT = (1, 3)
"""Smallest and largest number of false positives per image."""
FALSE_SCORES = (0.1, 0.4)
FALSE_HEIGHTS = (20.0, 200.0)
NODES = 5
"""Nodes along a side of the mesh that warps a mask."""


class NoisyMasks:
    """Masks of a synthetic world, with errors that depend only on amount, seed and name of the image.

    The draws do not depend on the amount: a larger one gives the same errors, only stronger, and some new ones.
    """

    def __init__(self, masks: InstanceMasks, index: NuscenesIndex, amount: float, seed: int = 0):
        """
        Args:
            amount: From 0, which changes nothing, to 1, the errors above.
        """
        if not 0 <= amount <= 1:
            raise ValueError(f"amount must lie in [0, 1], got {amount}")
        self.masks, self.index, self.amount, self.seed = masks, index, amount, seed
        self.identity = f"{masks.identity}, noise {amount:g}, seed {seed}"

    def __call__(self, row: int) -> ImageInstances:
        found = self.masks(row)
        if not self.index.data_is_key[row]:  # has no masks
            return found
        return noisy(found, self.amount, generator_of(self.seed, self.index.data_filename[row]))


def noisy(found: ImageInstances, amount: float, generator: np.random.Generator) -> ImageInstances:
    """The instances with errors, best score first."""
    height, width = found.masks.shape[1:]
    unit = width / FULL_WIDTH
    seen: list[tuple[float, Tensor, str]] = []
    for mask, klass in zip(found.masks, found.klass.tolist(), strict=True):
        missed, confused, which, grown = generator.random(4)
        sure = generator.beta(*SCORE_BETA)
        field = torch.from_numpy(generator.standard_normal((2, NODES, NODES))).float()
        small = int(mask.any(dim=1).sum()) < SMALL_HEIGHT * unit
        if missed < amount * (MISSED_SMALL if small else MISSED):
            continue
        name = PAINT_CLASSES[klass]
        name = confused_with(name, which) if confused < amount * CONFUSED else name
        mask = warped(mask, 1 + amount * SCALE_RANGE * (2 * grown - 1), amount * OUTLINE_SD * unit * field)
        seen.append((1 - amount * (1 - sure), mask, name))
    for _ in range(generator.integers(FALSE_COUNT[0], FALSE_COUNT[1] + 1)):
        there, which = generator.random(2)
        mask, score = _nothing((height, width), unit, generator), generator.uniform(*FALSE_SCORES)
        if there < amount:
            seen.append((score, mask, PAINT_CLASSES[int(which * len(PAINT_CLASSES))]))
    if not seen:
        return ImageInstances.none((height, width))
    scores, masks, names = zip(*sorted(seen, key=lambda each: -each[0]), strict=True)
    return ImageInstances.of(torch.stack(masks), names, torch.tensor(scores))


def confused_with(name: str, which: float) -> str:
    """Another class of the same group, chosen by a number in [0, 1); the class itself if it has no group."""
    for group in GROUPS:
        if name in group:
            others = [other for other in group if other != name]
            return others[int(which * len(others))]
    return name


def warped(mask: Bool[Tensor, "h w"], scale: float, field: Float[Tensor, "2 nodes nodes"]) -> Bool[Tensor, "h w"]:
    """A mask scaled about the middle of its box and warped by a smooth field.

    Args:
        field: Displacement down and right, in pixels, at the nodes of a mesh over the mask and its margin.
    """
    height, width = mask.shape
    rows, columns = mask.any(dim=1).nonzero().squeeze(1), mask.any(dim=0).nonzero().squeeze(1)
    if not len(rows):
        return mask
    low = torch.stack([rows[0], columns[0]])
    high = torch.stack([rows[-1], columns[-1]])
    margin = math.ceil(float(field.abs().max()) + abs(scale - 1) * float((high - low).max()))
    low, high = (low - margin).clamp(min=0), torch.minimum(high + margin, torch.tensor([height - 1, width - 1]))
    down, right = torch.meshgrid(
        *(torch.arange(int(low[axis]), int(high[axis]) + 1) for axis in range(2)), indexing="ij"
    )
    middle = torch.stack([rows[0] + rows[-1], columns[0] + columns[-1]]) / 2
    moved = F.interpolate(field[None], size=down.shape, mode="bilinear", align_corners=True)[0]
    at = torch.stack([down, right]) - middle[:, None, None]
    source = (middle[:, None, None] + at / scale + moved).round().long()
    inside = (source >= 0).all(dim=0) & (source[0] < height) & (source[1] < width)
    taken = mask[source[0].clamp(0, height - 1), source[1].clamp(0, width - 1)] & inside
    whole = torch.zeros_like(mask)
    whole[int(low[0]) : int(high[0]) + 1, int(low[1]) : int(high[1]) + 1] = taken
    return whole


def _nothing(size: tuple[int, int], unit: float, generator: np.random.Generator) -> Bool[Tensor, "h w"]:
    """An ellipse somewhere in the image."""
    height, width = size
    tall = unit * math.exp(generator.uniform(math.log(FALSE_HEIGHTS[0]), math.log(FALSE_HEIGHTS[1])))
    wide = tall * math.exp(generator.uniform(-math.log(2), math.log(2)))
    middle = height * generator.random(), width * generator.random()
    down, right = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    off_row, off_column = (down + 0.5 - middle[0]) / (tall / 2), (right + 0.5 - middle[1]) / (wide / 2)
    return off_row.square() + off_column.square() < 1
