"""A small teacher and student as every distiller meets them: records with gradients to watch, and targets."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from dualdistill.distill.label_encoder import LabelEncoder, LabelEncoderConfig
from dualdistill.distill.method import DistillerInputs
from dualdistill.distill.shapes import BevShapes
from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_head import CenterHead, CenterHeadConfig
from dualdistill.models.center_training import center_targets
from dualdistill.models.head_criterion import CenterCriterion
from dualdistill.structures import BevOutput, Boxes, CameraOutput, HeadOutput, InstanceMap, Targets

GRID = BevGrid.around(6.4, 0.8)
HEAD = CenterHeadConfig(shared_channels=8, head_channels=4, heatmap_bias=-4.0)
"""Sure of some cells, not of most."""
TEACHER = {"canvas": (6, 64, 64), "stages": ((8, 32, 32), (8, 16, 16), (16, 8, 8)), "neck": (24, 16, 16)}
STUDENT = {"canvas": (6, 16, 16), "stages": ((8, 8, 8), (16, 4, 4), (32, 2, 2)), "neck": (12, 16, 16)}


@dataclass(frozen=True)
class Pair:
    """What a distiller and its `build` take. Maps are leaves that keep a gradient, heads are frozen."""

    teacher: BevOutput
    student: BevOutput
    targets: Targets
    criterion: CenterCriterion

    @property
    def shapes(self) -> dict[str, BevShapes]:
        return {"teacher": BevShapes.of(self.teacher), "student": BevShapes.of(self.student)}

    def build(self, config):
        encoder = self.label_encoder() if config.requires.label_encoder else None
        tasks = self.criterion.config.task_of_class
        inputs = DistillerInputs(**self.shapes, criterion=self.criterion, label_encoder=encoder, task_of_class=tasks)
        return config.build(inputs)

    def label_encoder(self) -> LabelEncoder:
        """The same one each time."""
        torch.manual_seed(0)
        classes = len(self.criterion.config.task_of_class)
        return LabelEncoderConfig(hidden_channels=8).build(teacher=self.shapes["teacher"], classes=classes)


def random_boxes(count: int, generator: torch.Generator) -> Boxes:
    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    return Boxes(
        center=uniform(-6, 6, count, 3),
        size=uniform(1, 4, count, 3),
        yaw=uniform(-3, 3, count),
        velocity=uniform(-5, 5, count, 2),
        label=torch.randint(0, 10, (count,), generator=generator),
    )


def random_instances(batch: int, any_at_all: bool, generator: torch.Generator) -> InstanceMap:
    klass = torch.randint(-1, 10 if any_at_all else 0, (batch, 6, 4, 11), generator=generator)
    return InstanceMap(klass=klass, instance=torch.randint(0, 3, klass.shape, generator=generator))


@pytest.fixture
def make_pair() -> Callable[..., Pair]:
    """`make_pair(batch, boxes, dtype, seed)`: the numbers of a seed are the same in each type."""

    def make(batch: int = 2, boxes: int = 4, dtype: torch.dtype = torch.float32, seed: int = 0) -> Pair:
        generator = torch.Generator().manual_seed(seed)

        def leaf(*shape: int) -> Tensor:
            # Rounded to bfloat16 first, so that the half precision pair holds the same numbers.
            values = torch.randn(batch, *shape, generator=generator).relu().bfloat16()
            return values.to(dtype).requires_grad_()

        def output(shapes, camera: CameraOutput | None = None) -> BevOutput:
            torch.manual_seed(seed)
            head = CenterHead(HEAD, in_channels=shapes["neck"][0]).eval().requires_grad_(False)
            neck = leaf(*shapes["neck"])
            with torch.no_grad():
                said = head(neck.float())
            predictions = HeadOutput(
                heatmap=said.heatmap.bfloat16().to(dtype).requires_grad_(),
                regression=said.regression.bfloat16().to(dtype).requires_grad_(),
            )
            return BevOutput(
                extent=GRID.extent,
                canvas=leaf(*shapes["canvas"]),
                stages=tuple(leaf(*shape) for shape in shapes["stages"]),
                neck=neck,
                predictions=predictions,
                head=head,
                frames=2 if camera is not None else 1,
                camera=camera,
            )

        annotations = tuple(random_boxes(boxes, generator) for _ in range(batch))
        camera = CameraOutput(
            features=leaf(6, 8, 4, 11), depth_logits=leaf(6, 16, 4, 11), depths=1 + 4.0 * torch.arange(16)
        )
        targets = Targets(
            boxes=annotations,
            heatmap=center_targets(annotations, GRID, HEAD).heatmap,
            depth=60 * torch.rand(batch, 6, 4, 11, generator=generator),
            depth_instance=torch.randint(-1, boxes, (batch, 6, 4, 11), generator=torch.Generator().manual_seed(seed)),
            instances=random_instances(batch, bool(boxes), generator),
        )
        return Pair(output(TEACHER), output(STUDENT, camera), targets, CenterCriterion(GRID, HEAD))

    return make
