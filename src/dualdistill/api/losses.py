"""The distillation methods as losses for a training loop of your own, with detectors of any classes.

A detector takes part with its BEV maps: `Maps` of a batch, whose `Shapes` are known in advance. A loss is made once;
its parameters (the alignment layers) are optimised along with the student's and are not needed at test time
(docs/python.md#distillation-in-your-own-training-loop).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, get_type_hints

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dualdistill.api.arguments import public
from dualdistill.distill.distillbev import DistillBevConfig
from dualdistill.distill.dualdistill import DualDistillConfig, MfdConfig
from dualdistill.distill.label_encoder import LabelEncoder
from dualdistill.distill.labeldistill import LabelDistillConfig
from dualdistill.distill.method import DistillerConfig, DistillerInputs, HeadCriterion
from dualdistill.distill.shapes import BevShapes as Shapes
from dualdistill.distill.tig_bev import TigBevConfig
from dualdistill.distill.x3kd import X3kdConfig
from dualdistill.models.center_head import REGRESSION, CenterHeadConfig
from dualdistill.models.center_training import center_targets
from dualdistill.models.head_criterion import CenterCriterion
from dualdistill.settings import require
from dualdistill.structures import TASKS, BevOutput, Boxes, HeadOutput, Losses, Targets, weighted_sum

CODES = sum(REGRESSION.values())
NUSCENES = tuple(map(len, TASKS))

Head = Callable[[Tensor], "HeadOutput | tuple[Tensor, Tensor]"]
"""A detection head as a function of the map it reads: heat map logits [batch, classes, y, x], and
[batch, tasks, 10, y, x] codes, the tasks' axis left out where there is one: offset x, y (cells), z of the centre (m),
log length, log width, log height, sin yaw, cos yaw, velocity x, y (m/s; a head without them has 8 codes)."""


@dataclass(frozen=True, kw_only=True)
class Maps:
    """BEV maps of one detector for one batch."""

    neck: Float[Tensor, "batch chan y x"]
    """Input of the detection head."""
    stages: Sequence[Tensor] = ()
    """Encoder stages, fine to coarse, each [batch, channels, y, x]."""
    head: Head | None = None
    """The detection head. The teacher's must be given, and gets no gradient of its own if it is frozen."""
    predictions: HeadOutput | tuple[Tensor, Tensor] | None = None
    """Output of the head for `neck`; computed where it is needed and not given."""
    canvas: Tensor | None = None
    """Input of the BEV encoder; if not given, the finest stage is used."""


class Distiller(nn.Module):
    """Distillation loss of a method: called with the maps of teacher and student and the annotated boxes.

    Args:
        teacher: Shapes of the frozen teacher's maps.
        student: Shapes of the student's maps, which cover the same rectangle.
        classes: Number of classes, or number of classes of each task of the heads, in the order of their labels.
        config: Settings of the method.
        criterion: Pseudo boxes and losses of a teacher head that is not CenterPoint-like (DualDistill only).
        label_encoder: Trained for this teacher (LabelDistill only).

    Raises:
        ValueError: for shapes that do not match each other or the settings, and for arguments that the settings do not
            use.
    """

    reads_predictions: ClassVar[bool] = False
    """Whether the student's own predictions are compared with the teacher's."""

    @public
    def __init__(
        self,
        *,
        teacher: Shapes,
        student: Shapes,
        classes: int | Sequence[int] = NUSCENES,
        config: DistillerConfig | None = None,
        criterion: HeadCriterion | None = None,
        label_encoder: LabelEncoder | None = None,
    ):
        require(config, get_type_hints(self.default_config)["return"] | None, "config")
        config = config or self.default_config(teacher, student, label_encoder)
        for name, given in (("criterion", criterion), ("label_encoder", label_encoder)):
            if given is not None and not getattr(config.requires, name):
                raise ValueError(f"{name} has no effect on {type(config).__name__} with these settings: leave it out")
        super().__init__()
        self.shapes = {"teacher": teacher, "student": student}
        x_min, y_min, x_max, y_max = teacher.extent
        self.head_config = CenterHeadConfig(
            task_classes=(classes,) if isinstance(classes, int) else tuple(classes),
            center_range=(x_min - 10, y_min - 10, -10.0, x_max + 10, y_max + 10, 10.0),
        )
        self.grid = teacher.grid(teacher.neck)
        self.weights = config.weights
        self.method = config.build(
            DistillerInputs(
                teacher=teacher,
                student=student,
                criterion=criterion or CenterCriterion(self.grid, self.head_config),
                label_encoder=label_encoder,
                task_of_class=self.head_config.task_of_class,
            )
        )

    @staticmethod
    def default_config(teacher: Shapes, student: Shapes, label_encoder: LabelEncoder | None) -> DistillerConfig:
        """Default settings for detectors of these shapes."""
        raise ValueError("a method without a default needs its config")

    def forward(
        self, teacher: Maps | BevOutput, student: Maps | BevOutput, targets: Sequence[Boxes] | Targets
    ) -> Float[Tensor, ""]:
        """Weighted sum of `losses`."""
        return weighted_sum(self.losses(teacher, student, targets), self.weights)

    def losses(
        self, teacher: Maps | BevOutput, student: Maps | BevOutput, targets: Sequence[Boxes] | Targets
    ) -> Losses:
        """Unweighted losses by name; `weights` has the weight of each.

        Args:
            targets: Annotated boxes of each sample, in the frame of the maps (velocities NaN where unknown), or
                `structures.Targets` with whatever else the settings need.

        Raises:
            ValueError: for maps of other shapes than the loss was built for, and for boxes of another number of
                samples, with labels beyond the classes, values that are not finite or sizes not above 0.
        """
        require(teacher, Maps | BevOutput, "teacher")
        require(student, Maps | BevOutput, "student")
        if len(teacher.neck) != len(student.neck):
            raise ValueError(
                f"the maps are of {len(teacher.neck)} samples of the teacher, {len(student.neck)} of the student"
            )
        if not isinstance(targets, Targets):
            require(targets, Sequence, "targets")
            boxes = tuple(targets)
            _require_boxes(boxes, len(teacher.neck), sum(self.head_config.task_classes))
            targets = Targets(boxes=boxes, heatmap=center_targets(boxes, self.grid, self.head_config).heatmap)
        with torch.no_grad():
            theirs = self._output("teacher", teacher, needs_head=True)
        ours = self._output("student", student, needs_head=self.reads_predictions)
        losses: Losses = self.method(theirs, ours, targets)
        return losses

    def _output(self, who: str, maps: Maps | BevOutput, needs_head: bool) -> BevOutput:
        """The record that a distiller reads, checked against the shapes."""
        if isinstance(maps, BevOutput):
            return maps
        shapes = self.shapes[who]
        if not all(isinstance(each, Tensor) and each.is_floating_point() for each in (*maps.stages, maps.neck)):
            raise ValueError(f"the {who}'s stages and neck must be tensors of floating point")
        found = [tuple(each.shape[1:]) for each in (*maps.stages, maps.neck)]
        if found != [*shapes.stages, shapes.neck]:
            raise ValueError(f"the {who}'s stages and neck must be {[*shapes.stages, shapes.neck]}, got {found}")
        head = maps.head

        def read(neck: Tensor) -> HeadOutput:
            if head is None:
                raise ValueError(f"this loss reads the {who}'s predictions: give its Maps a head")
            return _head_output(head(neck))

        batch, _, height, width = maps.neck.shape
        predictions = HeadOutput(
            heatmap=maps.neck.new_zeros(batch, 0, height, width),
            regression=maps.neck.new_zeros(batch, 0, CODES, height, width),
        )
        if maps.predictions is not None:
            predictions = _head_output(maps.predictions)
        elif needs_head:
            predictions = read(maps.neck)
        count, classes = predictions.heatmap.shape[1], sum(self.head_config.task_classes)
        if needs_head and count != classes:
            raise ValueError(f"the {who}'s heat maps have {count} classes, this loss was made for {classes}")
        return BevOutput(
            extent=shapes.extent,
            canvas=maps.canvas if maps.canvas is not None else (*maps.stages, maps.neck)[0],
            stages=tuple(maps.stages),
            neck=maps.neck,
            predictions=predictions,
            head=read,
            frames=shapes.frames,
        )


def _head_output(output: HeadOutput | tuple[Tensor, Tensor]) -> HeadOutput:
    """Heat maps and codes as a record, with an axis for tasks, and velocities of zero where there are none."""
    if isinstance(output, HeadOutput):
        return output
    if not (isinstance(output, tuple | list) and len(output) == 2 and all(isinstance(each, Tensor) for each in output)):
        raise ValueError(f"a head gives heat maps and codes, two tensors, got {type(output).__name__}")
    heatmap, codes = output
    codes = codes.unsqueeze(1) if codes.ndim == 4 else codes
    if codes.ndim != 5 or codes.shape[2] not in (CODES - 2, CODES):
        raise ValueError(
            f"a head's codes must be [batch, tasks, {CODES} or {CODES - 2}, y, x], got {list(codes.shape)}"
        )
    return HeadOutput(heatmap=heatmap, regression=F.pad(codes, (0, 0, 0, 0, 0, CODES - codes.shape[2])))


def _require_boxes(boxes: tuple[Boxes, ...], samples: int, classes: int) -> None:
    """Check the annotated boxes of a batch. Raises ValueError saying what is wrong with them."""
    if len(boxes) != samples or not all(isinstance(each, Boxes) for each in boxes):
        kinds = ", ".join(sorted({type(each).__name__ for each in boxes}))
        raise ValueError(f"expected the Boxes of each of {samples} samples, got {len(boxes)} ({kinds})")
    for each in boxes:
        shapes = [tuple(column.shape) for column in (each.label, each.center, each.size, each.yaw)]
        if each.label.is_floating_point() or shapes != [(len(each),), (len(each), 3), (len(each), 3), (len(each),)]:
            raise ValueError(
                f"boxes need whole numbers as labels, and centres, sizes and yaws of as many, got {shapes}"
            )
    labels = torch.cat([each.label for each in boxes])
    numbers = torch.cat([torch.cat([each.center, each.size, each.yaw[:, None]], dim=1) for each in boxes])
    if not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"expected labels from 0 and labels below {classes} (classes), got {low} to {high}")
    if not bool(numbers.isfinite().all() & (numbers[:, 3:6] > 0).all()):
        raise ValueError("boxes need finite centres, sizes and yaws, and sizes above 0")


def _last_two(shapes: Shapes, other: Shapes) -> tuple[int, ...]:
    """The coarsest two stages, which the papers distil, or as many as the other detector has, too. Raises ValueError
    where one has none."""
    if not shapes.stages or not other.stages:
        raise ValueError("a detector without stages has no features to distil: give the stages of both, or a config")
    count, stages = min(2, len(shapes.stages), len(other.stages)), len(shapes.stages)
    return tuple(range(stages - count, stages))


class DualDistill(Distiller):
    """DualDistill (BMVC 2025): feature distillation after orthogonal alignment, and cross-head response distillation.

    The student's features are aligned by attention and an orthogonal projection (AOA) and imitate the teacher's,
    weighted by region (MFD); the teacher's head must find the teacher's boxes in them (CRD). See
    docs/methods/dualdistill.md. Args as in `Distiller`; the default `config` distils the coarsest two stages of each
    detector.
    """

    @staticmethod
    def default_config(teacher: Shapes, student: Shapes, label_encoder: LabelEncoder | None) -> DualDistillConfig:
        stages = _last_two(student, teacher), _last_two(teacher, student)
        return DualDistillConfig(mfd=MfdConfig(student_stages=stages[0], teacher_stages=stages[1]))


class DistillBev(Distiller):
    """DistillBEV (ICCV 2023): distillation of features, weighted by region. See docs/methods/distillbev.md.

    Args as in `Distiller`; the default `config` distils the coarsest two stages of each detector.
    """

    @staticmethod
    def default_config(teacher: Shapes, student: Shapes, label_encoder: LabelEncoder | None) -> DistillBevConfig:
        return DistillBevConfig(student_stages=_last_two(student, teacher), teacher_stages=_last_two(teacher, student))


class TigBev(Distiller):
    """TiG-BEV (2022): distillation of relations between features inside boxes. See docs/methods/tig_bev.md.

    Args as in `Distiller`; the default `config` leaves out inner depth, which needs `structures.BevOutput` with depth
    logits and `structures.Targets` with depth labels.
    """

    @staticmethod
    def default_config(teacher: Shapes, student: Shapes, label_encoder: LabelEncoder | None) -> TigBevConfig:
        return TigBevConfig(inner_depth_weight=None)


class X3kd(Distiller):
    """X3KD-style distillation of features, also adversarial, and of outputs. See docs/methods/x3kd.md.

    Args as in `Distiller`. Both detectors need a head, over maps of one size.
    """

    reads_predictions = True

    @staticmethod
    def default_config(teacher: Shapes, student: Shapes, label_encoder: LabelEncoder | None) -> X3kdConfig:
        return X3kdConfig()


class LabelDistill(Distiller):
    """LabelDistill (ECCV 2024): distillation of LiDAR features, label features and responses.

    See docs/methods/labeldistill.md. Args as in `Distiller`. Both detectors need a head, over maps of one size.
    `label_encoder` (`distill.label_encoder`) must be trained for the teacher; without one, the default `config` leaves
    its features out. The default pairs the teacher's coarsest two stages with maps of their size.
    """

    reads_predictions = True

    @staticmethod
    def default_config(teacher: Shapes, student: Shapes, label_encoder: LabelEncoder | None) -> LabelDistillConfig:
        ours = {"canvas": student.canvas} | {f"stage{i}": shape for i, shape in enumerate(student.stages)}
        level_of_size = {shape[1:]: level for level, shape in reversed(ours.items())}
        paired = [i for i, shape in enumerate(teacher.stages) if shape[1:] in level_of_size][-2:]
        return LabelDistillConfig(
            label_weight=0.3 if label_encoder is not None else None,
            student_levels=tuple(level_of_size[teacher.stages[i][1:]] for i in paired),
            teacher_stages=tuple(paired),
        )
