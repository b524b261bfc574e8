"""What a real segmenter gets wrong, put into perfect masks (docs/methods/mvp.md#imperfect-masks):
objects missed and mistaken,
outlines off, scores below 1, and things seen that are not there.

A mask is bent by a smooth field. Visibility of an annotation is not known, so only small objects are missed more often.
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
"""Pixels of the images that lengths below are meant for; in smaller ones they are shorter."""
SMALL_HEIGHT = 20.0
MISSED, MISSED_SMALL = 0.2, 0.4
"""Probability of missing an object, and one less than `SMALL_HEIGHT` high."""
OUTLINE_SD = 3.0
"""Pixels by which an outline is off."""
SCALE_RANGE = 0.1
"""A mask grows or shrinks by at most this."""
CONFUSED = 0.05
"""Probability of taking an object for another of its group."""
GROUPS = (("car", "truck", "bus", "trailer", "construction_vehicle"), ("bicycle", "motorcycle"))
SCORE_BETA = (5.0, 2.0)
"""Of objects that are there."""
FALSE_COUNT = (1, 3)
"""Things an image shows that are not there: fewest, most."""
FALSE_SCORES = (0.1, 0.4)
FALSE_HEIGHTS = (20.0, 200.0)
NODES = 5
"""A side of the mesh that bends a mask."""


class NoisyMasks:
    """Masks of a synthetic world, with errors that depend on amount, seed and name of the image alone.

    All draws are made whatever the amount is: more of it makes the same errors, larger, and some new ones.
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
        if not self.index.data_is_key[row]:  # nobody has looked at it
            return found
        return noisy(found, self.amount, generator_of(self.seed, self.index.data_filename[row]))


def noisy(found: ImageInstances, amount: float, generator: np.random.Generator) -> ImageInstances:
    """The instances with errors, best score first."""
    height, width = found.masks.shape[1:]
    unit = width / FULL_WIDTH
    masks, names, scores = [], [], []
    for mask, klass in zip(found.masks, found.klass.tolist(), strict=True):
        missed, confused, which, grown = generator.random(4)
        sure = generator.beta(*SCORE_BETA)
        field = torch.from_numpy(generator.standard_normal((2, NODES, NODES))).float()
        small = int(mask.any(dim=1).sum()) < SMALL_HEIGHT * unit
        if missed < amount * (MISSED_SMALL if small else MISSED):
            continue
        name = PAINT_CLASSES[klass]
        masks.append(bent(mask, 1 + amount * SCALE_RANGE * (2 * grown - 1), amount * OUTLINE_SD * unit * field))
        names.append(taken_for(name, which) if confused < amount * CONFUSED else name)
        scores.append(1 - amount * (1 - sure))
    for _ in range(generator.integers(FALSE_COUNT[0], FALSE_COUNT[1] + 1)):
        there, which = generator.random(2)
        mask, score = _nothing((height, width), unit, generator), generator.uniform(*FALSE_SCORES)
        if there < amount:
            masks.append(mask)
            names.append(PAINT_CLASSES[int(which * len(PAINT_CLASSES))])
            scores.append(score)
    if not masks:
        return ImageInstances.none((height, width))
    order = sorted(range(len(masks)), key=lambda number: -scores[number])
    return ImageInstances.of(
        torch.stack([masks[number] for number in order]),
        [names[number] for number in order],
        torch.tensor([scores[number] for number in order]),
    )


def taken_for(name: str, which: float) -> str:
    """Another class of the same group, drawn by a number in [0, 1); the class itself if it has no group."""
    for group in GROUPS:
        if name in group:
            others = [other for other in group if other != name]
            return others[int(which * len(others))]
    return name


def bent(mask: Bool[Tensor, "h w"], scale: float, field: Float[Tensor, "2 nodes nodes"]) -> Bool[Tensor, "h w"]:
    """A mask made larger about the middle of its box, its pixels then moved by a smooth field.

    Args:
        field: Pixels down and right at the nodes of a mesh over the mask and its margin.
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
