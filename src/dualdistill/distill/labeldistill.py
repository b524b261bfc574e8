"""LabelDistill: the student learns from the LiDAR teacher and from features of the labels themselves, each in a third
of its channels.

Source: LabelDistill, ECCV 2024; docs/methods/labeldistill.md. Its label encoder is trained before (`label_encoder`).

Where the released code does what the paper hardly meant, a switch has its behaviour under the name "released", which
is the default where published numbers rest on it: `partition`, `response_target`. Boxes out of range are a switch of
the label encoder. Not offered: frozen networks whose batch norms run on the statistics of the batch.
"""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dualdistill.distill.align import no_weight_decay, upsample
from dualdistill.distill.blocks import ResidualBlock
from dualdistill.distill.crd import RESPONSES, HeadCriterion, response_weights
from dualdistill.distill.label_encoder import LabelEncoder
from dualdistill.distill.responses import TASK_OF_CLASS, gaussian_focal, in_students_units, probability, sum_by_task
from dualdistill.distill.shapes import BevShapes, Shape
from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.frozen import FrozenModule
from dualdistill.ops.processes import mean_count
from dualdistill.structures import TASKS, BevOutput, Boxes, HeadOutput, Losses, Targets

Partition = Literal["released", "key_frame", "none"]
"""Thirds of all channels of the canvas, the past frame's included, which no gradient reaches; or of the key frame's; or
all channels to both, an ablation."""
ResponseTarget = Literal["released", "soft"]
"""Of the heat map: a focal loss whose positives never occur, so that it only suppresses; or a quality focal loss."""

CANVAS = "canvas"
"""Name of the student's level before its encoder; stage<n> are the encoder's, 0 the finest."""


@dataclass(frozen=True, kw_only=True)
class LabelDistillConfig:
    """Knobs of `LabelDistill`; the defaults are the released settings. One without effect is an error."""

    label: bool = True
    """Features of the label encoder as a teacher."""
    lidar: bool = True
    """Features of the LiDAR teacher."""
    response: bool = True
    """What the LiDAR teacher's head answers."""

    student_levels: tuple[str, ...] = ("canvas", "stage0")
    """Maps of the student that learn ("canvas", "stage0", ...), each from the teacher's stage at the same place of …"""
    teacher_stages: tuple[int, ...] = (1, 2)
    """… these, of the same size in cells."""
    partition: Partition = "released"
    """Of the canvas; stages are in thirds of all channels, or whole for "none"."""
    frames: int = 2
    """Frames stacked in the canvas, the current one first; for partition "key_frame"."""
    label_weight: float = 0.3
    lidar_weight: float = 0.3

    response_target: ResponseTarget = "released"
    response_heatmap_weight: float = 1.0
    response_box_weight: float = 0.25
    response_velocity_weight: float = 1.0
    """On top of `response_box_weight`."""

    def __post_init__(self) -> None:
        if not (self.label or self.lidar or self.response):
            raise ValueError("label, lidar and response are all off: nothing to distil; leave the distiller out")
        if not self.student_levels or len(self.student_levels) != len(self.teacher_stages):
            raise ValueError(
                f"student_levels and teacher_stages must pair up, got {self.student_levels} and {self.teacher_stages}"
            )
        if len({*self.student_levels}) != len(self.student_levels):
            raise ValueError(f"each student level can learn once, got {self.student_levels}")
        for level in self.student_levels:
            if level != CANVAS and not level.removeprefix("stage").isdecimal():
                raise ValueError(f'a student level is "canvas" or "stage0", "stage1", ..., got {level!r}')
        if self.frames < 1:
            raise ValueError(f"frames must be at least 1, got {self.frames}")
        for each in fields(self):
            if each.name.endswith("_weight") and getattr(self, each.name) < 0:
                raise ValueError(f"{each.name} must not be negative, got {getattr(self, each.name)}")
        self._reject_options_without_effect()

    def _reject_options_without_effect(self) -> None:
        idle: dict[str, set[str]] = {}
        if not self.label:
            idle["label is off"] = {"label_weight"}
        if not self.lidar:
            idle["lidar is off"] = {"lidar_weight"}
        if not (self.label or self.lidar):
            idle["no features are distilled"] = {"student_levels", "teacher_stages", "partition", "frames"}
        if CANVAS not in self.student_levels and self.partition != "none":
            idle["the canvas is not distilled"] = {"partition", "frames"}
        if self.partition != "key_frame":
            idle[f'partition "{self.partition}" looks at all channels alike'] = {"frames"}
        if not self.response:
            idle["response is off"] = {each.name for each in fields(self) if each.name.startswith("response_")}
        default = {each.name: each.default for each in fields(self)}
        for reason, names in idle.items():
            for name in sorted(names):
                if getattr(self, name) != default[name]:
                    raise ValueError(f"{name} has no effect, since {reason}: leave it out")

    @property
    def guides(self) -> dict[str, float]:
        """Who teaches features, and the weight of that."""
        who = {"label": (self.label, self.label_weight), "lidar": (self.lidar, self.lidar_weight)}
        return {name: weight for name, (on, weight) in who.items() if on}

    @property
    def reads(self) -> tuple[str, ...]:
        """Maps of the teacher that are compared; a teacher cache may leave out the others."""
        return tuple(f"stage{stage}" for stage in self.teacher_stages if self.lidar)

    @property
    def weights(self) -> dict[str, float]:
        """Of every loss by name."""
        weights = {f"{guide}/{level}": w for guide, w in self.guides.items() for level in self.student_levels}
        if self.response:
            response = response_weights(
                heatmap=self.response_heatmap_weight,
                box=self.response_box_weight,
                velocity=self.response_velocity_weight,
            )
            weights |= {f"response/{name}": weight for name, weight in response.items()}
        return weights

    def build(
        self,
        *,
        teacher: BevShapes,
        student: BevShapes,
        judge: HeadCriterion | None = None,
        label_encoder: LabelEncoder | None = None,
    ) -> "LabelDistill":
        """
        Args:
            judge: Not needed: heads are compared cell by cell.
            label_encoder: Trained for this teacher; needed if `label` is on. It is frozen here.

        Raises:
            ValueError: if the shapes do not fit each other or this config, or the label encoder is missing or is
            another teacher's.
        """
        return LabelDistill(self, teacher, student, label_encoder)


class Adaptor(nn.Module):
    """One level of the student's part, in the channels of what it should resemble; never negative."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="replicate"),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            ResidualBlock(out_channels),
        )

    def forward(self, features: Float[Tensor, "batch _ y x"]) -> Float[Tensor, "batch chan y x"]:
        return self.layers(features)


class LabelDistill(nn.Module):
    """Losses "label/<level>", "lidar/<level>" and "response/<response>"; owns the adaptors, neither teacher nor label
    encoder."""

    def __init__(
        self, config: LabelDistillConfig, teacher: BevShapes, student: BevShapes, label_encoder: LabelEncoder | None
    ):
        super().__init__()
        if teacher.extent != student.extent:
            raise ValueError(f"teacher and student must see one rectangle, got {teacher.extent} and {student.extent} m")
        if config.response and teacher.neck[1:] != student.neck[1:]:
            raise ValueError(f"response: the heads must share one grid, got {teacher.neck[1:]} and {student.neck[1:]}")
        if config.label and label_encoder is None:
            raise ValueError("label needs a trained label encoder: pass it to build, or switch label off")
        if not config.label and label_encoder is not None:
            raise ValueError("a label encoder has no effect while label is off: leave it out")
        self.config = config
        self.grid = teacher.grid(teacher.neck)
        self.label_encoder: FrozenModule | None = None
        if label_encoder is not None:
            if (label_encoder.shapes.stages, label_encoder.shapes.extent) != (teacher.stages, teacher.extent):
                raise ValueError(
                    f"the label encoder speaks for stages {label_encoder.shapes.stages} over "
                    f"{label_encoder.shapes.extent} m, the teacher has {teacher.stages} over {teacher.extent} m"
                )
            self.label_encoder = FrozenModule(label_encoder)
        pairs = _paired_shapes(config, teacher, student) if config.guides else {}
        self.adaptors = nn.ModuleDict(
            {
                guide: nn.ModuleDict(
                    {level: Adaptor(_width(config, level, here[0]), there[0]) for level, (there, here) in pairs.items()}
                )
                for guide in config.guides
            }
        )

    def forward(self, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses:
        """All in float32, whatever precision the detectors ran in."""
        with torch.autocast(student.neck.device.type, enabled=False):
            losses: Losses = {}
            for guide, adaptors in self.adaptors.items():
                assert isinstance(adaptors, nn.ModuleDict)
                taught = self._stages(guide, teacher, targets)
                for level, stage in zip(self.config.student_levels, self.config.teacher_stages, strict=True):
                    part = partition(level, student, self.config)[guide]
                    mask = object_mask(targets.heatmap, part.shape[-2:])
                    mask = (mask > 0).float() if guide == "label" else mask
                    losses[f"{guide}/{level}"] = masked_squares(adaptors[level](part.float()) - taught[stage], mask)
            if self.config.response:
                theirs = in_students_units(teacher.predictions, targets)
                response = response_losses(theirs, student.predictions, targets, self.grid, self.config.response_target)
                losses |= {f"response/{name}": loss for name, loss in response.items()}
        return losses

    @torch.no_grad()
    def _stages(self, guide: str, teacher: BevOutput, targets: Targets) -> tuple[Tensor, ...]:
        """The feature maps of a guide, float32, without gradient."""
        if guide == "lidar":
            return tuple(stage.detach().float() for stage in teacher.stages)
        assert self.label_encoder is not None
        return self.label_encoder.module(targets.boxes)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay must spare."""
        return no_weight_decay(self)


def partition(level: str, student: BevOutput, config: LabelDistillConfig) -> dict[str, Tensor]:
    """The parts of a map of the student: "label", "lidar" and "free", which is left alone
    (docs/methods/labeldistill.md#partition)."""
    features = student.canvas if level == CANVAS else student.stages[int(level.removeprefix("stage"))]
    width = _width(config, level, features.shape[1])
    first = 0 if config.partition == "none" else width  # of the LiDAR's channels
    return {
        "label": features[:, :width],
        "lidar": features[:, first : first + width],
        "free": features[:, first + width :],
    }


def _width(config: LabelDistillConfig, level: str, channels: int) -> int:
    """Of the label's and of the LiDAR's part of a level, channels."""
    if config.partition == "none":
        return channels
    if level == CANVAS and config.partition == "key_frame":
        channels //= config.frames
    return channels // 3


def object_mask(heatmap: Float[Tensor, "batch klass _ _"], size: torch.Size) -> Float[Tensor, "batch 1 y x"]:
    """How much of an object each cell is: heat maps summed over classes (above 1 where classes meet), on a map of
    another size by bilinear sampling, corner on corner."""
    return upsample(heatmap.float().sum(dim=1, keepdim=True), (size[0], size[1]))


def masked_squares(error: Float[Tensor, "batch chan y x"], mask: Float[Tensor, "batch 1 y x"]) -> Float[Tensor, ""]:
    """Squares, summed over channels, averaged over the mask of the whole batch (a mask below 1 counts as 1)."""
    return (error.square().sum(dim=1, keepdim=True) * mask).sum() / mean_count(mask.sum(), at_least=1)


def response_losses(
    teacher: HeadOutput, student: HeadOutput, targets: Targets, grid: BevGrid, target: ResponseTarget = "released"
) -> Losses:
    """Losses `RESPONSES` of the student's answers against the teacher's, each the sum over tasks
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
    peaks = sum_by_task((targets.heatmap == 1).sum(dim=(0, 2, 3)).float())
    heatmap = (sum_by_task(cells.sum(dim=(0, 2, 3))) / mean_count(peaks, at_least=1)).sum()
    return {"heatmap": heatmap} | _box_responses(teacher.regression, student.regression, targets.boxes, grid)


def _box_responses(
    teacher: Float[Tensor, "batch task code y x"],
    student: Float[Tensor, "batch task code y x"],
    boxes: tuple[Boxes, ...],
    grid: BevGrid,
) -> Losses:
    sample = torch.cat([each.label.new_full((len(each),), i) for i, each in enumerate(boxes)]).long()
    task = torch.tensor(TASK_OF_CLASS, device=sample.device)[torch.cat([each.label for each in boxes]).long()]
    cell = torch.cat([grid.cells(each.center[:, :2]) for each in boxes])
    known = torch.cat([each.velocity.isfinite().all(dim=1) for each in boxes])
    used = grid.inside(cell) & torch.cat([(each.size > 0).all(dim=1) for each in boxes])
    sample, task, cell, known = sample[used], task[used], cell[used], known[used]

    place = (sample, task, slice(None), cell[:, 1], cell[:, 0])
    error = (student[place].float() - teacher[place].float()).abs()  # boxes code
    count = mean_count(error.new_zeros(len(TASKS)).index_add(0, task, error.new_ones(len(error))))
    error = error / count[task, None]  # so that each task sums to its mean
    groups = error.split((2, 1, 3, 2, 2), dim=1)
    losses = {name: group.sum() for name, group in zip(RESPONSES[1:], groups, strict=True)}
    return losses | {"box/velocity": (groups[-1] * known[:, None]).sum()}


def _paired_shapes(
    config: LabelDistillConfig, teacher: BevShapes, student: BevShapes
) -> dict[str, tuple[Shape, Shape]]:
    """Teacher's and student's shapes of each level."""
    ours = {CANVAS: student.canvas} | {f"stage{i}": shape for i, shape in enumerate(student.stages)}
    pairs = {}
    for level, stage in zip(config.student_levels, config.teacher_stages, strict=True):
        if level not in ours or not 0 <= stage < len(teacher.stages):
            raise ValueError(
                f"{level} of the student should learn from stage {stage} of the teacher: there are {', '.join(ours)} "
                f"and stages 0 to {len(teacher.stages) - 1}"
            )
        here, there = ours[level], teacher.stages[stage]
        if here[1:] != there[1:]:
            raise ValueError(
                f"{level} has {here[1]}x{here[2]} cells, the teacher's stage {stage} {there[1]}x{there[2]}: "
                "pair maps of one size"
            )
        if not _width(config, level, here[0]):
            raise ValueError(f"{level} has {here[0]} channels, too few to part in three")
        pairs[level] = (there, here)
    return pairs
