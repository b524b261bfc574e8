"""Annotations drawn as maps, the input of LabelDistill's label encoder. See docs/methods/labeldistill.md#label-maps.

Differs from the released code in that boxes centred outside the map are left out; there they paint its border
cells. `paint_out_of_range` is the released behaviour; tests/parity holds it. Boxes past the 500th of a task, which
the released code drops, are drawn.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from dualdistill.geometry.boxes import bev_corners
from dualdistill.geometry.grid import BevGrid
from dualdistill.structures import CLASSES, Boxes

BOX_VALUES = 9
"""x, y, z, length, width, height (metres), yaw (radians), velocity x, y (m/s), as they are."""
PAINTED = 0.5
"""Share of a box's length and width that is painted."""


@dataclass(frozen=True, kw_only=True)
class LabelMaps:
    """Box values and class of each painted cell; the others are zero."""

    box: Float[Tensor, "batch y x 9"]
    klass: Float[Tensor, "batch y x klass"]
    """One-hot."""

    @property
    def mask(self) -> Bool[Tensor, "batch y x"]:
        """The painted cells."""
        return self.klass.any(dim=-1)


@torch.no_grad()
def label_maps(
    boxes: tuple[Boxes, ...], grid: BevGrid, *, classes: int = len(CLASSES), paint_out_of_range: bool = False
) -> LabelMaps:
    """The boxes of each sample, drawn at half their length and width; unknown velocities become 0.

    Of several boxes over one cell the last is drawn: by class, then in the order of the annotations. The part of a
    box that sticks out of the map paints the border cells next to it.

    Args:
        boxes: In the frame of the grid.
    """
    drawn = [_draw(each, grid, classes, paint_out_of_range) for each in boxes]
    box, klass = (torch.stack(maps) for maps in zip(*drawn, strict=True))
    return LabelMaps(box=box, klass=klass)


def _draw(
    boxes: Boxes, grid: BevGrid, classes: int, paint_out_of_range: bool
) -> tuple[Float[Tensor, "y x 9"], Float[Tensor, "y x klass"]]:
    if not paint_out_of_range:
        boxes = boxes.select(grid.inside(grid.cells(boxes.center[:, :2])))
    boxes = boxes.select(boxes.label.argsort(stable=True))
    yaw, velocity = boxes.yaw[:, None], boxes.velocity.nan_to_num(0.0)
    values = torch.cat([boxes.center, boxes.size, yaw, velocity], dim=1).float()
    klass = F.one_hot(boxes.label.long(), classes).float()
    index = _last_box(boxes, grid)  # -1, no box, selects the zeros at the end
    return F.pad(values, (0, 0, 0, 1))[index], F.pad(klass, (0, 0, 0, 1))[index]


def _last_box(boxes: Boxes, grid: BevGrid) -> Int[Tensor, "y x"]:
    """Index of the last box painted over each cell, -1 where there is none."""
    device = boxes.center.device
    last = torch.full((grid.height * grid.width,), -1, device=device)
    if not len(boxes):
        return last.view(grid.shape)
    painted = replace(boxes, size=boxes.size * PAINTED)
    corners = grid.coordinates(bev_corners(painted)).trunc().long()  # boxes 4 2: column, row
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    side = torch.arange(int((high - low).max()) + 1, device=device)
    offsets = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).flatten(0, 1)
    cells = low[:, None] + offsets  # boxes cells 2
    index = torch.arange(len(boxes), device=device)[:, None]
    index = torch.where(_in_polygons(cells, corners), index, -1)
    column, row = cells[..., 0].clamp(0, grid.width - 1), cells[..., 1].clamp(0, grid.height - 1)
    return last.scatter_reduce(0, (row * grid.width + column).flatten(), index.flatten(), "amax").view(grid.shape)


def _in_polygons(
    points: Int[Tensor, "polygons points 2"], corners: Int[Tensor, "polygons corners 2"]
) -> Bool[Tensor, "polygons points"]:
    """Whether each point lies in its polygon, the border included; whole numbers, so there is no doubt."""
    inside = torch.zeros(points.shape[:2], dtype=torch.bool, device=points.device)
    border = inside.clone()
    for start, end in zip(corners.unbind(dim=1), corners.roll(-1, dims=1).unbind(dim=1), strict=True):
        (dx, dy), (px, py) = (end - start)[:, None].unbind(-1), (points - start[:, None]).unbind(-1)
        left = dx * py - dy * px  # positive on the left of the edge, 0 on its line
        border |= (left == 0) & (px * (px - dx) <= 0) & (py * (py - dy) <= 0)
        inside ^= ((py < 0) != (py < dy)) & ((left > 0) == (dy > 0))  # a ray along +x meets the edge
    return inside | border
