"""LabelDistill's label encoder: annotations to features from which the teacher's frozen head detects those objects.

Source: docs/methods/labeldistill.md#label-encoder, docs/methods/labeldistill.md#label-maps. It is trained alone, before
any student: `LabelDetector` makes a detector of it, which encodes the annotations and detects through the teacher's
frozen neck and head.

Differs from the released code in that the frozen teacher stays in evaluation mode (there its batch norms run on the
statistics of the batch), in the loss weights of this stage, which are the teacher's own (there velocities count 0.5),
and in where labels are drawn: boxes centred outside the map are left out; there they paint its border cells
(`paint_out_of_range` is the released behaviour; tests/parity holds it). Boxes past the 500th of a task, which the
released code drops, are drawn.
"""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dualdistill.distill.align import no_weight_decay
from dualdistill.distill.shapes import BevShapes
from dualdistill.geometry.boxes import bev_corners
from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.blocks import ResidualBlock
from dualdistill.ops.frozen import FrozenModule
from dualdistill.settings import Few, checked
from dualdistill.structures import CLASSES, Batch, BevOutput, Boxes, Detector, HeadOutput, Losses, Targets

BOX_VALUES = 9
"""x, y, z, length, width, height (metres), yaw (radians), velocity x, y (m/s), as they are."""


@dataclass(frozen=True, kw_only=True)
class LabelMaps:
    """Box values and class of each painted cell; the others are zero."""

    box: Float[Tensor, "batch y x 9"]
    klass: Float[Tensor, "batch y x klass"]
    """One-hot."""


@dataclass(frozen=True, kw_only=True)
@checked
class LabelEncoderConfig:
    """Settings of `LabelEncoder`."""

    hidden_channels: Few = 256
    """Channels of a cell, before the convolutions that end in the teacher's."""
    paint_out_of_range: bool = False
    """Let boxes centred outside the map paint its border, as the released code does."""

    def build(self, *, teacher: BevShapes, classes: int = len(CLASSES)) -> "LabelEncoder":
        """The encoder for a teacher with maps of these shapes and so many classes. Raises ValueError if the teacher's
        finest stage is not a whole multiple of its others."""
        return LabelEncoder(self, teacher, classes)


class LabelEncoder(nn.Module):
    """Boxes to the teacher's encoder stages. Labels are drawn on the grid of the finest of them."""

    def __init__(self, config: LabelEncoderConfig, teacher: BevShapes, classes: int = len(CLASSES)):
        super().__init__()
        self.config = config
        self.classes = classes
        self.shapes = teacher
        _, height, width = teacher.stages[0]
        self.grid = teacher.grid(teacher.stages[0])
        hidden = config.hidden_channels
        self.of_box, self.of_klass, self.of_both = (
            nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
            for inputs in (BOX_VALUES, classes, hidden)
        )
        self.norm = nn.LayerNorm(hidden)
        self.mix = ResidualBlock(hidden, hidden)
        self.stages = nn.ModuleList()
        for shape in teacher.stages:
            stride = height // shape[1]
            if height % shape[1] or stride * shape[2] != width:
                raise ValueError(f"stages of {height}x{width} and {shape[1]}x{shape[2]} cells have no whole stride")
            reduce = nn.Conv2d(hidden, shape[0], 3, stride, padding=1, padding_mode="replicate")
            self.stages.append(nn.Sequential(reduce, nn.LayerNorm(shape), nn.ReLU()))

    def forward(self, boxes: tuple[Boxes, ...]) -> tuple[Float[Tensor, "batch _ _ _"], ...]:
        """Features in the shapes of the teacher's stages, never negative. `boxes`: annotations of each sample in the
        (augmented) BEV frame."""
        paint = self.config.paint_out_of_range
        return self.encode(label_maps(boxes, self.grid, classes=self.classes, paint_out_of_range=paint))

    def encode(self, maps: LabelMaps) -> tuple[Float[Tensor, "batch _ _ _"], ...]:
        hidden = self.norm(self.of_both(self.of_box(maps.box) + self.of_klass(maps.klass)))
        mixed = self.mix(hidden.permute(0, 3, 1, 2).contiguous())
        return tuple(stage(mixed) for stage in self.stages)

    no_weight_decay = no_weight_decay  # the function of `align` as a method


@runtime_checkable
class OpenDetector(Detector, Protocol):
    """A detector whose neck and head can be applied to encoder stages that are not its own."""

    def neck(self, stages: tuple[Tensor, ...]) -> Tensor: ...
    def head(self, neck: Tensor) -> HeadOutput: ...


class LabelDetector(nn.Module):
    """The label encoder before the frozen teacher's neck and head: a detector whose input is the annotations.

    Its detections measure how well the encoder's features suit the teacher's head; its losses train the encoder alone.
    Its state dict holds the encoder and nothing of the teacher.
    """

    def __init__(self, encoder: LabelEncoder, teacher: OpenDetector):
        super().__init__()
        if not isinstance(teacher, nn.Module):
            raise ValueError(f"the teacher must be a module, got {type(teacher).__name__}")
        self.encoder = encoder
        self._teacher = FrozenModule(teacher)

    @property
    def teacher(self) -> OpenDetector:
        held = self._teacher.module
        assert isinstance(held, OpenDetector)
        return held

    @property
    def weights(self) -> dict[str, float]:
        """Loss weights: the teacher's."""
        return self.teacher.weights

    def forward(self, batch: Batch) -> BevOutput:
        """Output for the annotations of a batch, whose other fields are not used; no canvas but the finest stage."""
        stages = self.encoder(batch.boxes)
        neck = self.teacher.neck(stages)
        return BevOutput(
            extent=self.encoder.shapes.extent,
            canvas=stages[0],
            stages=stages,
            neck=neck,
            predictions=self.teacher.head(neck),
            head=self.teacher.head,
        )

    def targets(self, batch: Batch) -> Targets:
        return self.teacher.targets(batch)

    def losses(self, output: BevOutput, targets: Targets) -> Losses:
        """The teacher's own, unweighted."""
        return self.teacher.losses(output, targets)

    def detect(self, output: BevOutput, batch: Batch) -> tuple[Boxes, ...]:
        """Boxes of each sample in the augmented BEV frame, with scores."""
        return self.teacher.detect(output, batch)

    no_weight_decay = no_weight_decay


PAINTED = 0.5
"""Share of a box's length and width that is painted."""


@torch.no_grad()
def label_maps(
    boxes: tuple[Boxes, ...], grid: BevGrid, *, classes: int = len(CLASSES), paint_out_of_range: bool = False
) -> LabelMaps:
    """The boxes of each sample, drawn at half their length and width; unknown velocities become 0.

    Of several boxes over one cell the last is drawn: by class, then in the order of the annotations. The part of a box
    that sticks out of the map paints the border cells next to it. `boxes`: in the frame of the grid.
    """
    maps = []
    for sample in boxes:
        if not paint_out_of_range:
            sample = sample.select(grid.inside(grid.cells(sample.center[:, :2])))
        sample = sample.select(sample.label.argsort(stable=True))
        columns = sample.center, sample.size, sample.yaw[:, None], sample.velocity.nan_to_num(0.0)
        values = torch.cat(columns, dim=1).float(), F.one_hot(sample.label.long(), classes).float()
        index = _last_box(sample, grid)  # -1, no box, selects the zeros at the end
        maps.append([F.pad(each, (0, 0, 0, 1))[index] for each in values])
    box, klass = map(torch.stack, zip(*maps, strict=True))
    return LabelMaps(box=box, klass=klass)


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
