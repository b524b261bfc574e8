"""LabelDistill: features of the LiDAR teacher and of the labels, each distilled into a third of the student's channels.

Source: LabelDistill, ECCV 2024; docs/methods/labeldistill.md. Its label encoder is trained before (`label_encoder`).

Where the released code does what the paper hardly intended, an option has its behaviour under the name "released",
which is the default where published numbers rest on it: `partition`, `response.target`. Boxes out of range are an
option of the label encoder. Frozen networks whose batch norms run on the statistics of the batch are not offered.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dualdistill.distill.align import no_weight_decay, upsample
from dualdistill.distill.method import DistillerConfig, DistillerInputs, Requires
from dualdistill.distill.shapes import BevShapes
from dualdistill.distill.terms import RESPONSES, in_students_units, response_weights, sum_by_task
from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.blocks import ResidualBlock
from dualdistill.ops.focal import gaussian_focal, probability
from dualdistill.ops.frozen import FrozenModule
from dualdistill.ops.integers import constant
from dualdistill.ops.processes import mean_count
from dualdistill.settings import Natural, NonNegative, checked
from dualdistill.structures import TASK_OF_CLASS, BevOutput, Boxes, HeadOutput, Losses, Targets

Partition = Literal["released", "key_frame", "none"]
"""Thirds of all channels of the canvas, the past frame's included, which no gradient reaches; or of the key frame's; or
all channels to both, an ablation."""
ResponseTarget = Literal["released", "soft"]
"""Loss of the heat map: a focal loss whose positives never occur, so that it only suppresses; or a quality focal
loss."""

CANVAS = "canvas"
"""Name of the student's level before its encoder; stage<n> are the encoder's, 0 the finest."""


@dataclass(frozen=True, kw_only=True)
@checked
class ResponseConfig:
    """Settings of response distillation from the LiDAR teacher's head; the defaults are the released ones."""

    target: ResponseTarget = "released"
    heatmap_weight: NonNegative = 1.0
    box_weight: NonNegative = 0.25
    velocity_weight: NonNegative = 1.0
    """On top of `box_weight`."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every loss of `response_losses` by name."""
        return response_weights(heatmap=self.heatmap_weight, box=self.box_weight, velocity=self.velocity_weight)


@dataclass(frozen=True, kw_only=True)
@checked
class LabelDistillConfig(DistillerConfig):
    """Settings of `LabelDistill`; the defaults are the released ones."""

    label_weight: NonNegative | None = 0.3
    """Weight of the label encoder's features; None leaves them out."""
    lidar_weight: NonNegative | None = 0.3
    """Weight of the LiDAR teacher's features; None leaves them out."""
    student_levels: tuple[str, ...] = ("canvas", "stage0")
    """Maps of the student that are distilled: "canvas", "stage0", ..."""
    teacher_stages: tuple[Natural, ...] = (1, 2)
    """Stage of the teacher that each of `student_levels` imitates, of the same size in cells."""
    partition: Partition = "released"
    """Division of the canvas; stages are in thirds of all channels, or whole for "none"."""
    response: ResponseConfig | None = field(default_factory=ResponseConfig)
    """Responses of the LiDAR teacher's head; None leaves them out."""

    def __post_init__(self) -> None:
        if not self.weights:
            raise ValueError("label_weight, lidar_weight and response are all none: leave the distiller out")
        if not self.student_levels or len(self.student_levels) != len(self.teacher_stages):
            raise ValueError(
                f"student_levels and teacher_stages must pair up, got {self.student_levels} and {self.teacher_stages}"
            )
        if len({*self.student_levels}) != len(self.student_levels):
            raise ValueError(f"each student level can be distilled once, got {self.student_levels}")
        for level in self.student_levels:
            if level != CANVAS and not level.removeprefix("stage").isdecimal():
                raise ValueError(f'a student level is "canvas" or "stage0", "stage1", ..., got {level!r}')
        if CANVAS not in self.student_levels and self.partition == "key_frame":
            raise ValueError('partition "key_frame" has no effect, since the canvas is not distilled')

    @property
    def guides(self) -> dict[str, float]:
        """Sources of features and their weights."""
        weights = {"label": self.label_weight, "lidar": self.lidar_weight}
        return {name: weight for name, weight in weights.items() if weight is not None}

    @property
    def weights(self) -> dict[str, float]:
        weights = {f"{guide}/{level}": w for guide, w in self.guides.items() for level in self.student_levels}
        responses = self.response.weights if self.response is not None else {}
        return weights | {f"response/{name}": weight for name, weight in responses.items()}

    @property
    def requires(self) -> Requires:
        stages = self.teacher_stages if self.lidar_weight is not None else ()
        return Requires(
            teacher_maps=tuple(f"stage{stage}" for stage in stages), label_encoder=self.label_weight is not None
        )

    def build(self, inputs: DistillerInputs) -> "LabelDistill":
        return LabelDistill(self, inputs)


def adaptor(in_channels: int, out_channels: int) -> nn.Module:
    """One level of the student's part, in the channels of what it should resemble; never negative."""
    layers = nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="replicate"),
        *(nn.BatchNorm2d(out_channels), nn.ReLU(), ResidualBlock(out_channels, out_channels)),
    )
    return nn.Sequential(OrderedDict(layers=layers))


class LabelDistill(nn.Module):
    """Losses "label/<level>", "lidar/<level>" and "response/<response>"; owns the adaptors, neither teacher nor label
    encoder."""

    def __init__(self, config: LabelDistillConfig, inputs: DistillerInputs):
        super().__init__()
        teacher, student, label_encoder = inputs.teacher, inputs.student, inputs.label_encoder
        if config.response is not None and teacher.neck[1:] != student.neck[1:]:
            raise ValueError(f"response: the heads must share one grid, got {teacher.neck[1:]} and {student.neck[1:]}")
        if (config.label_weight is not None) != (label_encoder is not None):
            raise ValueError("label_weight and a trained label encoder go together: pass both to build, or neither")
        self.config = config
        self.task_of_class = inputs.task_of_class
        self.grid = teacher.grid(teacher.neck)
        self.label_encoder: FrozenModule | None = None
        if label_encoder is not None:
            if (label_encoder.shapes.stages, label_encoder.shapes.extent) != (teacher.stages, teacher.extent):
                raise ValueError(
                    f"the label encoder was made for stages {label_encoder.shapes.stages} over "
                    f"{label_encoder.shapes.extent} m, the teacher has {teacher.stages} over {teacher.extent} m"
                )
            self.label_encoder = FrozenModule(label_encoder)
        channels = _adaptor_channels(config, teacher, student) if config.guides else {}
        self.adaptors = nn.ModuleDict(
            {guide: nn.ModuleDict({level: adaptor(*c) for level, c in channels.items()}) for guide in config.guides}
        )

    def forward(self, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses:
        """All in float32, whatever precision the detectors ran in."""
        with torch.autocast(student.neck.device.type, enabled=False):
            losses: Losses = {}
            for guide, adaptors in self.adaptors.items():
                assert isinstance(adaptors, nn.ModuleDict)
                if self.label_encoder is not None and guide == "label":
                    with torch.no_grad():
                        stages = self.label_encoder.module(targets.boxes)
                else:
                    stages = tuple(stage.detach().float() for stage in teacher.stages)
                for level, stage in zip(self.config.student_levels, self.config.teacher_stages, strict=True):
                    part = partition(level, student, self.config)[guide]
                    mask = object_mask(targets.heatmap, part.shape[-2:])
                    mask = (mask > 0).float() if guide == "label" else mask
                    losses[f"{guide}/{level}"] = masked_squares(adaptors[level](part.float()) - stages[stage], mask)
            if self.config.response is not None:
                theirs, target = in_students_units(teacher.predictions, targets), self.config.response.target
                response = response_losses(theirs, student.predictions, targets, self.grid, target, self.task_of_class)
                losses |= {f"response/{name}": loss for name, loss in response.items()}
        return losses

    no_weight_decay = no_weight_decay  # the function of `align` as a method


def student_maps(student: BevOutput | BevShapes) -> dict[str, Any]:
    """The student's maps that can be distilled, or their shapes, by level."""
    return {CANVAS: student.canvas} | {f"stage{i}": stage for i, stage in enumerate(student.stages)}


def partition(level: str, student: BevOutput, config: LabelDistillConfig) -> dict[str, Tensor]:
    """The distilled parts of a map of the student: "label" and "lidar" (docs/methods/labeldistill.md#partition)."""
    features = student_maps(student)[level]
    width = _width(config, level, features.shape[1], student.frames)
    first = 0 if config.partition == "none" else width  # of the LiDAR's channels
    return {"label": features[:, :width], "lidar": features[:, first : first + width]}


def _width(config: LabelDistillConfig, level: str, channels: int, frames: int) -> int:
    """Channels of the label's and of the LiDAR's part of a level."""
    if config.partition == "none":
        return channels
    if level == CANVAS and config.partition == "key_frame":
        channels //= frames
    return channels // 3


def object_mask(heatmap: Float[Tensor, "batch klass _ _"], size: torch.Size) -> Float[Tensor, "batch 1 y x"]:
    """How much of an object each cell is: heat maps summed over classes (above 1 where classes meet), on a map of
    another size by bilinear sampling, corner on corner."""
    return upsample(heatmap.float().sum(dim=1, keepdim=True), (size[0], size[1]))


def masked_squares(error: Float[Tensor, "batch chan y x"], mask: Float[Tensor, "batch 1 y x"]) -> Float[Tensor, ""]:
    """Squares, summed over channels, averaged over the mask of the whole batch (a mask below 1 counts as 1)."""
    return (error.square().sum(dim=1, keepdim=True) * mask).sum() / mean_count(mask.sum(), at_least=1)


def response_losses(
    teacher: HeadOutput,
    student: HeadOutput,
    targets: Targets,
    grid: BevGrid,
    target: ResponseTarget = "released",
    task_of_class: tuple[int, ...] = TASK_OF_CLASS,
) -> Losses:
    """Losses `RESPONSES` of the student's predictions against the teacher's, each the sum over tasks
    (docs/methods/labeldistill.md#response-losses).

    "heatmap": of every cell, against the teacher's probability times the annotated heat map; divided by the
    annotated peaks of the task. "box/...": absolute differences of the codes at the annotated centres, divided by
    their number; codes of which the annotation is not known (velocities) do not count.

    Args:
        teacher: Without gradient, in the student's units.
        grid: Of both heads.
    """
    p = probability(student.heatmap)
    q = probability(teacher.heatmap) * targets.heatmap
    if target == "released":
        cells = gaussian_focal(p, q)
    else:
        cells = (q - p).square() * -(q * p.log() + (1 - q) * (1 - p).log())
    peaks = sum_by_task((targets.heatmap == 1).sum(dim=(0, 2, 3)).float(), task_of_class)
    heatmap = (sum_by_task(cells.sum(dim=(0, 2, 3)), task_of_class) / mean_count(peaks, at_least=1)).sum()
    boxes = _box_responses(teacher.regression, student.regression, targets.boxes, grid, task_of_class)
    return {"heatmap": heatmap} | boxes


def _box_responses(
    teacher: Float[Tensor, "batch task code y x"],
    student: Float[Tensor, "batch task code y x"],
    boxes: tuple[Boxes, ...],
    grid: BevGrid,
    task_of_class: tuple[int, ...],
) -> Losses:
    sample = torch.cat([each.label.new_full((len(each),), i) for i, each in enumerate(boxes)]).long()
    task = constant(task_of_class, sample.device)[torch.cat([each.label for each in boxes]).long()]
    cell = torch.cat([grid.cells(each.center[:, :2]) for each in boxes])
    known = torch.cat([each.velocity.isfinite().all(dim=1) for each in boxes])
    used = grid.inside(cell) & torch.cat([(each.size > 0).all(dim=1) for each in boxes])
    kept = used.nonzero().squeeze(1)  # once: the host waits for a GPU each time
    sample, task, cell, known = sample[kept], task[kept], cell[kept], known[kept]

    place = (sample, task, slice(None), cell[:, 1], cell[:, 0])
    error = (student[place].float() - teacher[place].float()).abs()  # boxes code
    count = mean_count(error.new_zeros(teacher.shape[1]).index_add(0, task, error.new_ones(len(error))))
    error = error / count[task, None]  # so that each task sums to its mean
    groups = error.split((2, 1, 3, 2, 2), dim=1)
    losses = {name: group.sum() for name, group in zip(RESPONSES[1:], groups, strict=True)}
    return losses | {"box/velocity": (groups[-1] * known[:, None]).sum()}


def _adaptor_channels(config: LabelDistillConfig, teacher: BevShapes, student: BevShapes) -> dict[str, tuple[int, int]]:
    """Channels of the student's part of each level and of the teacher's map."""
    ours, channels = student_maps(student), {}
    for level, stage in zip(config.student_levels, config.teacher_stages, strict=True):
        if level not in ours or stage >= len(teacher.stages):
            raise ValueError(
                f"{level} of the student is paired with stage {stage} of the teacher: there are {', '.join(ours)} "
                f"and stages 0 to {len(teacher.stages) - 1}"
            )
        (width, *here), (out_channels, *there) = ours[level], teacher.stages[stage]
        if here != there:
            raise ValueError(f"{level} has {here} cells, the teacher's stage {stage} {there}: pair maps of one size")
        channels[level] = _width(config, level, width, student.frames), out_channels
        if not channels[level][0]:
            raise ValueError(f"{level} has {width} channels, too few to part in three")
    return channels
