"""Cost of distillation: the distiller beside its released formulation, distilled steps beside the student's own."""

import math
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.references.distillation import released_losses
from dualdistill.distill.dualdistill import DualDistill, DualDistillConfig
from dualdistill.experiment.experiment import Experiment
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.recipes.catalogue import find
from dualdistill.report.timing import Row, Variant, measure, run_ms
from dualdistill.structures import BevOutput, HeadOutput, Losses, Targets, weighted_sum
from dualdistill.train.assemble import assemble
from dualdistill.train.data import random_batch
from dualdistill.train.step import LiveTeacher, TeacherSource
from dualdistill.train.teacher_cache import CachedTeacher, TeacherCache

POINTS = 100_000
"""LiDAR points of a sample: ten sweeps on a street, in range."""


def run(quick: bool) -> list[Row]:
    """Both tables, at the size of the R50 recipe (quick: of the synthetic one), batch 1."""
    family = "synthetic" if quick else "nuscenes"
    step = DistilledStep(find(f"{family}/dualdistill-centerpoint").build(), points=POINTS // 20 if quick else POINTS)
    setting = f"{family} size, batch 1, float32, {torch.get_num_threads()} threads"
    rows = distiller_rows(step, setting, repeats=5)
    if quick:
        return rows + step_rows(step, setting, repeats=5)
    # A quarter of the pixels: the student, whose step is the measure, is then cheaper than it is, distillation is not.
    data = replace(step.experiment.data, image_size=(128, 352))
    smaller = DistilledStep(replace(step.experiment, data=data))
    return rows + step_rows(smaller, setting.replace("batch 1", "images 128x352, batch 1"), repeats=3)


class DistilledStep:
    """A student, its teacher and DualDistill, randomly initialised, and a batch for them."""

    def __init__(self, experiment: Experiment, *, samples: int = 1, boxes: int = 40, points: int = POINTS):
        torch.manual_seed(0)
        self.batch = random_batch(experiment.data, samples, boxes=boxes, points=points)
        self.training = assemble(experiment).train()
        teacher, student = self.training.teacher, self.training.detector
        assert isinstance(teacher, LiveTeacher)
        assert isinstance(student, BevDepth)
        self.teacher, self.student = teacher, student
        assert isinstance(experiment.distiller, DualDistillConfig)
        self.experiment, self.config = experiment, experiment.distiller

    def records(self) -> tuple[BevOutput, BevOutput, Targets]:
        """Inputs of the distiller: a teacher that finds every object, student's maps that keep a gradient."""
        with torch.no_grad():
            teacher_output, student_output = self.teacher(self.batch), self.student(self.batch)
        targets = self.student.targets(self.batch)
        student_output = replace(
            student_output,
            stages=tuple(stage.detach().requires_grad_() for stage in student_output.stages),
            neck=student_output.neck.detach().requires_grad_(),
        )
        confident = _confident(teacher_output.predictions, targets)
        return replace(teacher_output, predictions=confident), student_output, targets

    def __call__(self, distil: bool) -> None:
        """Forward and backward of one training step, in float32 whatever the recipe trains in.

        Half precision is slower where a CPU lacks it, which would make distillation look cheap.
        """
        self.training.zero_grad()
        weighted_sum(self.training(self.batch, distil), self.training.weights).backward()


def _confident(predictions: HeadOutput, targets: Targets) -> HeadOutput:
    """Heat maps as annotated, boxes of three metres: as many pseudo boxes as there are objects."""
    regression = torch.zeros_like(predictions.regression)
    regression[:, :, 3:6] = math.log(3.0)
    return HeadOutput(heatmap=targets.heatmap.clamp(1e-4, 1 - 1e-4).logit(), regression=regression)


def distiller_rows(step: DistilledStep, setting: str, *, repeats: int) -> list[Row]:
    """Losses and gradients of the distiller alone: adapters and losses, forward and backward, teacher excluded."""
    distiller = step.training.distiller
    assert isinstance(distiller, DualDistill)
    teacher, student, targets = step.records()
    scales: dict[str, Tensor] = {}

    def compute(losses_of: Callable[[BevOutput, BevOutput, Targets], Losses]) -> dict[str, Tensor]:
        maps = {"neck": student.neck} | {f"stage{n}": student.stages[n] for n in (1, 2)}
        for leaf in (*maps.values(), *distiller.parameters()):
            leaf.grad = None
        losses = losses_of(teacher, student, targets)
        weighted_sum(losses, step.config.weights).backward()
        # Each over its largest value, or the largest of all would hide the differences of the others.
        results = {name: loss.detach() for name, loss in losses.items()}
        results |= {f"gradient to {name}": leaf.grad for name, leaf in maps.items() if leaf.grad is not None}
        scales.update({name: value.abs().max() for name, value in results.items() if name not in scales})
        return {name: value / scales[name] for name, value in results.items()}

    rows = measure(
        f"distiller, forward and backward ({setting})",
        [
            Variant(
                name="released formulation",
                run=lambda: compute(partial(released_losses, distiller)),
                repeats=min(repeats, 3),
            ),
            Variant(name="DualDistill", run=lambda: compute(distiller)),
        ],
        repeats=repeats,
    )
    ours = rows[-1]
    beside = f"distiller beside the student's step ({setting})"
    alone_ms = statistics.median(run_ms(lambda: step(False)) for _ in range(3))
    alone = Row(setting=beside, name="student's step, median of 3", milliseconds=alone_ms, ratio=1.0)
    return [*rows, alone, replace(ours, setting=beside, ratio=alone_ms / ours.milliseconds, difference=None)]


def step_rows(step: DistilledStep, setting: str, *, repeats: int) -> list[Row]:
    """Whole training steps; the ratio is the share of the student's own speed that is left."""

    def distilled(source: TeacherSource) -> Callable[[], None]:
        def run() -> None:
            step.training.teacher = source
            step(True)

        return run

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        output = step.teacher(step.batch)
        cache = TeacherCache(Path(folder), {}, output, step.config.requires.teacher_maps or (), "bf16")
        cache.write(step.batch, output)
        network = step.teacher.module
        assert isinstance(network, CenterPoint)
        with torch.enable_grad():
            return measure(
                f"training step, forward and backward ({setting})",
                [
                    Variant(name="student alone", run=lambda: step(False)),
                    Variant(name="distilled, live teacher fp32", run=distilled(step.teacher)),
                    Variant(name="distilled, live teacher bf16", run=distilled(LiveTeacher(network, "bf16"))),
                    Variant(name="distilled, teacher cached", run=distilled(CachedTeacher(network.head, cache))),
                ],
                repeats=repeats,
            )
