"""What distillation costs: the distiller beside its released formulation, and taught steps beside untaught ones."""

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import Row, Variant, measure
from benchmarks.references.distillation import released_losses
from dualdistill.distill.dualdistill import DualDistill, DualDistillConfig
from dualdistill.experiment.experiment import Experiment
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.recipes.catalogue import find
from dualdistill.structures import BevOutput, HeadOutput, Losses, Targets, weighted_sum
from dualdistill.train.assemble import assemble
from dualdistill.train.random_batch import random_batch
from dualdistill.train.teacher_cache import TeacherCache
from dualdistill.train.teacher_source import CachedTeacher, LiveTeacher, TeacherSource

POINTS = 100_000
"""Of the teacher's sample: ten sweeps on a street, in range."""


def run(quick: bool) -> list[Row]:
    """Both tables, at the size of the R50 recipe (quick: of the synthetic one), batch 1."""
    family = "synthetic" if quick else "nuscenes"
    lesson = Lesson(find(f"{family}/dualdistill-centerpoint").build(), points=POINTS // 20 if quick else POINTS)
    setting = f"{family} size, batch 1, float32, {torch.get_num_threads()} threads"
    rows = distiller_rows(lesson, setting, repeats=5)
    if quick:
        return rows + step_rows(lesson, setting, repeats=5)
    # A quarter of the pixels: the student, whose step is the measure, is then cheaper than it is, distillation is not.
    data = replace(lesson.experiment.data, image_size=(128, 352))
    smaller = Lesson(replace(lesson.experiment, data=data))
    return rows + step_rows(smaller, setting.replace("batch 1", "images 128x352, batch 1"), repeats=3)


class Lesson:
    """A student, its teacher and DualDistill, randomly initialised, and a batch for them."""

    def __init__(self, experiment: Experiment, *, samples: int = 1, boxes: int = 40, points: int = POINTS):
        torch.manual_seed(0)
        self.batch = random_batch(experiment.data, samples, boxes=boxes, points=points)
        self.training = assemble(experiment).train()
        teacher, student = self.training.teacher, self.training.detector
        assert isinstance(teacher, LiveTeacher)
        assert isinstance(student, BevDepth)
        self.teacher, self.student = teacher, student
        config = experiment.distiller
        assert isinstance(config, DualDistillConfig)
        self.config = config
        self.experiment = experiment

    def records(self) -> tuple[BevOutput, BevOutput, Targets]:
        """What the distiller gets: a teacher that finds every object, student's maps that keep a gradient."""
        with torch.no_grad():
            taught, learnt = self.teacher(self.batch), self.student(self.batch)
        targets = self.student.targets(self.batch)
        learnt = replace(
            learnt,
            stages=tuple(stage.detach().requires_grad_() for stage in learnt.stages),
            neck=learnt.neck.detach().requires_grad_(),
        )
        return replace(taught, predictions=_convinced(taught.predictions, targets)), learnt, targets

    def step(self, distil: bool) -> None:
        """Forward and backward of one training step, in float32 whatever the recipe trains in: half precision is slower
        where a CPU lacks it, which would make distillation look cheap."""
        self.training.zero_grad()
        weighted_sum(self.training(self.batch, distil), self.training.weights).backward()


def _convinced(predictions: HeadOutput, targets: Targets) -> HeadOutput:
    """Heat maps as annotated, boxes of three metres: as many pseudo boxes as there are objects."""
    regression = torch.zeros_like(predictions.regression)
    regression[:, :, 3:6] = math.log(3.0)
    return HeadOutput(heatmap=targets.heatmap.clamp(1e-4, 1 - 1e-4).logit(), regression=regression)


def distiller_rows(lesson: Lesson, setting: str, *, repeats: int) -> list[Row]:
    """Losses and gradients of the distiller alone: adapters and losses, forward and backward, teacher excluded."""
    distiller = lesson.training.distiller
    assert isinstance(distiller, DualDistill)
    teacher, student, targets = lesson.records()
    scales: dict[str, Tensor] = {}

    def compute(losses_of: Callable[[BevOutput, BevOutput, Targets], Losses]) -> dict[str, Tensor]:
        maps = {"neck": student.neck} | {f"stage{n}": student.stages[n] for n in (1, 2)}
        for leaf in (*maps.values(), *distiller.parameters()):
            leaf.grad = None
        losses = losses_of(teacher, student, targets)
        weighted_sum(losses, lesson.config.weights).backward()
        # Each over its largest value, or the largest of all would hide the differences of the others.
        results = {name: loss.detach() for name, loss in losses.items()}
        results |= {f"gradient to {name}": leaf.grad for name, leaf in maps.items() if leaf.grad is not None}
        scales.update({name: value.abs().max() for name, value in results.items() if name not in scales})
        return {name: value / scales[name] for name, value in results.items()}

    def released(teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses:
        return released_losses(distiller, teacher, student, targets)

    rows = measure(
        f"distiller, forward and backward ({setting})",
        [
            Variant(name="released formulation", run=lambda: compute(released), repeats=min(repeats, 3)),
            Variant(name="DualDistill", run=lambda: compute(distiller)),
        ],
        repeats=repeats,
    )
    ours = rows[-1]
    beside = f"distiller beside the student's step ({setting})"
    step = statistics.median(_milliseconds(lesson) for _ in range(3))
    return [
        *rows,
        Row(benchmark=beside, name="student's step, median of 3", milliseconds=step, ratio=1.0),
        replace(ours, benchmark=beside, ratio=step / ours.milliseconds, difference=None),
    ]


def _milliseconds(lesson: Lesson) -> float:
    began = time.perf_counter()
    lesson.step(False)
    return 1e3 * (time.perf_counter() - began)


def step_rows(lesson: Lesson, setting: str, *, repeats: int) -> list[Row]:
    """Whole training steps; the ratio tells how much of the untaught step's speed is left."""

    def taught(source: TeacherSource) -> Callable[[], None]:
        def step() -> None:
            lesson.training.teacher = source
            lesson.step(True)

        return step

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        answer = lesson.teacher(lesson.batch)
        cache = TeacherCache.under(Path(folder), {}, answer, lesson.config.requires.teacher_maps or (), "bf16")
        cache.write(lesson.batch, answer)
        network = lesson.teacher.module
        assert isinstance(network, CenterPoint)
        cached = CachedTeacher(network.head, cache)
        with torch.enable_grad():
            return measure(
                f"training step, forward and backward ({setting})",
                [
                    Variant(name="student alone", run=lambda: lesson.step(False)),
                    Variant(name="taught, teacher fp32", run=taught(lesson.teacher)),
                    Variant(name="taught, teacher bf16", run=taught(LiveTeacher(lesson.teacher.module, "bf16"))),
                    Variant(name="taught, teacher cached", run=taught(cached)),
                ],
                repeats=repeats,
            )
