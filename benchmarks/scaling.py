"""Growth of a training step's cost with the size of the problem: one size varied, the others kept.

The exponent k of each table is the slope of log(cost) against log(size): cost ~ size^k between the sizes measured. 1 is
proportional, 0 means that other parts of the step decide. It stands in the name of the largest size and in the facts of
every row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dualdistill.experiment.experiment import Experiment
from dualdistill.recipes.catalogue import find
from dualdistill.report.timing import Row, Variant, measure
from dualdistill.train.data import POINTS
from dualdistill.train.step_cost import DummyStep, step_cost

FULL: dict[str, tuple[int, ...]] = {
    "cameras": (2, 4, 6),
    "image width": (176, 352, 528),
    "depth bins": (30, 59, 118),
    "BEV cells a side": (32, 64, 128),
    "batch": (1, 2),
    "points": (60_000, 120_000, 240_000),
}
"""Sizes of each table, from small to large; a student's own sizes are among them."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training step to take."""

    name: str
    experiment: Experiment
    cameras: int = 6
    points: int | None = None
    """LiDAR points of a sample; by default as many as its sweeps hold."""
    batch: int = 1

    @property
    def sizes(self) -> dict[str, int]:
        """Everything that the tables vary, by their names."""
        student, teacher, data = self.experiment.student, self.experiment.teacher, self.experiment.data
        if student is not None:
            image = {"cameras": self.cameras, "image width": data.image_size[1], "depth bins": student.lift.bins}
            return image | {"BEV cells a side": student.bev.grid.width, "batch": self.batch}
        assert teacher is not None
        points = POINTS * data.num_sweeps if self.points is None else self.points
        return {"points": points, "BEV cells a side": teacher.points_grid.width, "batch": self.batch}

    def resized(self, size: str, value: int) -> "Case":
        """The case with one size changed; images keep their shape, maps and depths their range in metres."""
        if self.sizes[size] == value:
            return self
        name = f"{self.name}, {size} {value}"
        if size in ("cameras", "points", "batch"):
            changed: dict[str, Any] = {size: value}
            return replace(self, **changed, name=name)
        student, data = self.experiment.student, self.experiment.data
        assert student is not None
        if size == "image width":
            height, width = data.image_size
            data = replace(data, image_size=(height * value // width, value))
        elif size == "depth bins":
            low, high = student.lift.depth_range
            student = replace(student, lift=replace(student.lift, depth_step=(high - low) / value))
        else:
            student = replace(student, bev=replace(student.bev, cell=2 * student.bev.reach / value))
        return replace(self, experiment=replace(self.experiment, student=student, data=data), name=name)

    def facts(self) -> dict[str, Any]:
        """Name, role, precision, counted arithmetic and sizes of the step."""
        experiment = self.experiment
        flops = self.batch * step_cost(experiment, cameras=self.cameras, points=self.points).flops
        precision = experiment.training.precision
        return {"step": self.name, "role": experiment.role, "precision": precision, "flops": flops, "sizes": self.sizes}


def run(quick: bool) -> list[Row]:
    """A table for each size at the architectures of the nuScenes recipes, and one of different recipes.

    Quick: at the architectures of the synthetic recipes, half and whole of each size, measured once.
    """
    student, teacher = as_trained("synthetic/student"), as_trained("synthetic/teacher-centerpoint")
    if quick:
        whole = teacher.sizes | student.sizes
        halves = {size: (whole[size] // 2, whole[size]) for size in FULL}
        return scaling_rows(halves, student, teacher, [student, teacher], repeats=1)
    large, pillars = half_student(), half_teacher()
    narrow = large.resized("image width", 176)
    training = replace(narrow.experiment.training, precision="bf16")
    low = replace(narrow, name=f"{narrow.name}, bf16", experiment=replace(narrow.experiment, training=training))
    return scaling_rows(FULL, large, pillars, [student, teacher, pillars, narrow, low, large], repeats=2)


def as_trained(recipe: str) -> Case:
    """A recipe in the batches it is trained in: in a step so small the fixed cost of many operations matters."""
    experiment, batch = find(recipe).build(), find(recipe).build().training.batch_size
    return Case(name=f"{recipe}, batch {batch}", experiment=experiment, batch=batch)


def half_student() -> Case:
    """`nuscenes/student` in float32 with images and map of half the side.

    Each part then costs a quarter: their proportions, and the exponents, are those of the recipe.
    """
    experiment = find("nuscenes/student").build()
    assert experiment.student is not None
    height, width = (side // 2 for side in experiment.data.image_size)
    bev = replace(experiment.student.bev, cell=2 * experiment.student.bev.cell)
    experiment = replace(
        experiment,
        data=replace(experiment.data, image_size=(height, width)),
        student=replace(experiment.student, bev=bev),
        training=replace(experiment.training, precision="32"),
    )
    return Case(name=f"nuscenes/student at {height}x{width}", experiment=experiment)


def half_teacher() -> Case:
    """`nuscenes/teacher-centerpoint` on a map of half the side, with pillars of the same size."""
    experiment = find("nuscenes/teacher-centerpoint").build()
    assert experiment.teacher is not None
    reach = experiment.teacher.reach / 2
    low, high = experiment.data.point_range[2::3]
    data = replace(experiment.data, point_range=(-reach, -reach, low, reach, reach, high), box_reach=reach)
    teacher = replace(experiment.teacher, reach=reach)
    experiment = replace(experiment, data=data, teacher=teacher)
    return Case(name=f"nuscenes/teacher-centerpoint within {reach} m", experiment=experiment, points=60_000)


def scaling_rows(
    varied: Mapping[str, tuple[int, ...]], student: Case, teacher: Case, recipes: Sequence[Case], *, repeats: int
) -> list[Row]:
    """A table for each size (points: the teacher's; others: the student's), then one of `recipes`.

    A step that several tables show is measured once; all of them take turns.
    """
    bases = {size: teacher if size == "points" else student for size in varied}
    tables = {size: [bases[size].resized(size, value) for value in values] for size, values in varied.items()}
    cases = {case.name: case for some in (*tables.values(), recipes) for case in some}
    steps = [
        Variant(
            name=name,
            run=DummyStep(case.experiment, case.batch, cameras=case.cameras, points=case.points).step,
            # many times slower on a processor without bf16 instructions
            repeats=1 if case.experiment.training.precision == "bf16" else None,
        )
        for name, case in cases.items()
    ]
    measured = {row.name: replace(row, facts=cases[row.name].facts()) for row in measure("", steps, repeats=repeats)}
    threads = f"{torch.get_num_threads()} threads"
    rows = []
    for size, some in tables.items():
        own = [measured[case.name] for case in some]
        rows += _table(size, f"scaling with {size}: {bases[size].name} ({threads})", varied[size], own)
    first, setting = measured[recipes[0].name].milliseconds, f"steps of different recipes ({threads})"
    chosen = [measured[case.name] for case in recipes]
    return rows + [replace(row, setting=setting, ratio=first / row.milliseconds) for row in chosen]


def _table(size: str, setting: str, values: Sequence[int], rows: Sequence[Row]) -> list[Row]:
    """Rows of one varied size, with the exponents; ratios are to the first."""
    time = exponent(values, [row.milliseconds for row in rows])
    known = [row.peak_mib for row in rows if row.peak_mib]
    memory = exponent(values, known) if len(known) == len(rows) else None
    text = f"time ~ {size}^{time:.2f}" + ("" if memory is None else f", memory ~ {size}^{memory:.2f}")
    return [
        replace(
            row,
            setting=setting,
            name=f"{size} {value}" + (f" ({text})" if value == values[-1] else ""),
            ratio=rows[0].milliseconds / row.milliseconds,
            facts=(row.facts or {}) | {"varied": size, "growth": {"time": time, "memory": memory}},
        )
        for value, row in zip(values, rows, strict=True)
    ]


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of the least-squares line through (log size, log cost)."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])
