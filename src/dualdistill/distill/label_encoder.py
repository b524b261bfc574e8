"""LabelDistill's label encoder: annotations to features from which the teacher's frozen head detects those objects.

Source: docs/methods/labeldistill.md#label-encoder. It is trained alone, before any student: `LabelDetector` makes a
detector of it, which encodes the annotations and detects through the teacher's frozen neck and head.

Differs from the released code in that the frozen teacher stays in evaluation mode (there its batch norms run on the
statistics of the batch), in where labels are drawn (see `label_maps`), and in the loss weights of this stage, which
are the teacher's own (there velocities count 0.5).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from dualdistill.distill.align import no_weight_decay
from dualdistill.distill.label_maps import BOX_VALUES, LabelMaps, label_maps
from dualdistill.distill.shapes import BevShapes, Shape
from dualdistill.ops.frozen import FrozenModule
from dualdistill.ops.residual import ResidualBlock
from dualdistill.settings import Few, checked
from dualdistill.structures import CLASSES, Batch, BevOutput, Boxes, HeadOutput, Losses, Targets


@dataclass(frozen=True, kw_only=True)
@checked
class LabelEncoderConfig:
    """Settings of `LabelEncoder`."""

    hidden_channels: Few = 256
    """Channels of a cell, before the convolutions that end in the teacher's."""
    paint_out_of_range: bool = False
    """Let boxes centred outside the map paint its border, as the released code does."""

    def build(self, *, teacher: BevShapes, classes: int = len(CLASSES)) -> "LabelEncoder":
        """The encoder for a teacher with maps of these shapes and so many classes.

        Raises:
            ValueError: if the teacher's finest stage is not a whole multiple of its others.
        """
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
        self.of_box = _per_cell(BOX_VALUES, hidden)
        self.of_klass = _per_cell(classes, hidden)
        self.of_both = _per_cell(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.mix = ResidualBlock(hidden, hidden)
        for shape in teacher.stages:
            if height % shape[1] or height // shape[1] * shape[2] != width:
                raise ValueError(f"stages of {height}x{width} and {shape[1]}x{shape[2]} cells have no whole stride")
        self.stages = nn.ModuleList(_stage(hidden, shape, stride=height // shape[1]) for shape in teacher.stages)

    def forward(self, boxes: tuple[Boxes, ...]) -> tuple[Float[Tensor, "batch _ _ _"], ...]:
        """Features in the shapes of the teacher's stages, never negative.

        Args:
            boxes: Annotations of each sample in the (augmented) BEV frame.
        """
        paint = self.config.paint_out_of_range
        return self.encode(label_maps(boxes, self.grid, classes=self.classes, paint_out_of_range=paint))

    def encode(self, maps: LabelMaps) -> tuple[Float[Tensor, "batch _ _ _"], ...]:
        hidden = self.norm(self.of_both(self.of_box(maps.box) + self.of_klass(maps.klass)))
        mixed = self.mix(hidden.permute(0, 3, 1, 2).contiguous())
        return tuple(stage(mixed) for stage in self.stages)

    no_weight_decay = no_weight_decay  # the function of `align` as a method


def _per_cell(in_channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, hidden))


def _stage(hidden: int, shape: Shape, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(hidden, shape[0], 3, stride, padding=1, padding_mode="replicate"), nn.LayerNorm(shape), nn.ReLU()
    )


@runtime_checkable
class OpenDetector(Protocol):
    """A detector whose neck and head can be applied to encoder stages that are not its own."""

    @property
    def weights(self) -> dict[str, float]: ...
    def neck(self, stages: tuple[Tensor, ...]) -> Tensor: ...
    def head(self, neck: Tensor) -> HeadOutput: ...
    def targets(self, batch: Batch) -> Targets: ...
    def losses(self, output: BevOutput, targets: Targets) -> Losses: ...
    def detect(self, output: BevOutput, batch: Batch) -> tuple[Boxes, ...]: ...


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

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters to exempt from weight decay."""
        return {f"encoder.{name}" for name in self.encoder.no_weight_decay()}
