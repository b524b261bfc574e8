"""How the cost of a training step grows with the size of the problem: one thing varied, the others kept.

The exponent k of each table is the slope of log(cost) against log(size): cost ~ size^k between the sizes measured. 1 is
proportional, 0 means that something else decides. It stands in the name of the largest size, for readers, and in the
facts of every row, for `dualdistill plan`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import torch

from benchmarks.measure import Row, Variant, measure
from dualdistill.commands.scaling import Facts, growth_of, plain_facts
from dualdistill.experiment.experiment import Experiment
from dualdistill.recipes.catalogue import find
from dualdistill.train.random_batch import POINTS
from dualdistill.train.step_cost import DummyStep, step_cost


@dataclass(frozen=True, kw_only=True)
class Case:
    """A step to take."""

    name: str
    experiment: Experiment
    cameras: int = 6
    points: int | None = None
    """Of a sample; as many as its sweeps hold, if not given."""
    batch: int = 1

    @property
    def sizes(self) -> dict[str, int]:
        """By the names of the tables."""
        student, teacher, data = self.experiment.student, self.experiment.teacher, self.experiment.data
        if student is not None:
            image = {"cameras": self.cameras, "image width": data.image_size[1], "depth bins": student.lift.bins}
            return image | {"BEV cells a side": student.bev.grid.width, "batch": self.batch}
        assert teacher is not None
        points = POINTS * data.num_sweeps if self.points is None else self.points
        return {"points": points, "BEV cells a side": teacher.points_grid.width, "batch": self.batch}

    def resized(self, size: str, value: int) -> "Case":
        """With one size changed; images keep their shape, maps and depths their reach."""
        if self.sizes[size] == value:
            return self
        name = f"{self.name}, {size} {value}"
        if size in ("cameras", "points", "batch"):
            changed: dict[str, Any] = {size: value}
            return replace(self, **changed, name=name)
        experiment = self.experiment
        student, data = experiment.student, experiment.data
        assert student is not None
        if size == "image width":
            height, width = data.image_size
            data = replace(data, image_size=(height * value // width, value))
        elif size == "depth bins":
            low, high = student.lift.depth_range
            student = replace(student, lift=replace(student.lift, depth_step=(high - low) / value))
        else:
            student = replace(student, bev=replace(student.bev, cell=2 * student.bev.reach / value))
        return replace(self, experiment=replace(experiment, student=student, data=data), name=name)

    def rehearsal(self) -> DummyStep:
        return DummyStep(self.experiment, self.batch, cameras=self.cameras, points=self.points)

    def facts(self) -> Facts:
        return Facts(
            step=self.name,
            role=self.experiment.role,
            precision=self.experiment.training.precision,
            flops=self.batch * step_cost(self.experiment, cameras=self.cameras, points=self.points).flops,
            sizes=self.sizes,
            varied=None,
            growth=None,
        )


Variation = tuple[str, Case, tuple[int, ...]]
"""A table: the size that is varied, the case it is varied of, and its values from small to large."""


def run(quick: bool) -> list[Row]:
    """A table for each size at the architectures of the nuScenes recipes, and one of different recipes; quick: at those
    of the synthetic ones, two sizes of each, measured once."""
    student, teacher = small_student(), small_teacher()
    if quick:
        return scaling_rows(_variations(student, teacher, quick=True), [student, teacher], repeats=1)
    large = half_student()
    narrow = large.resized("image width", 176)
    training = replace(narrow.experiment.training, precision="bf16")
    in_half = replace(narrow, name=f"{narrow.name}, bf16", experiment=replace(narrow.experiment, training=training))
    recipes = [student, teacher, half_teacher(), narrow, in_half, large]
    return scaling_rows(_variations(large, half_teacher()), recipes, repeats=2)


def _variations(student: Case, teacher: Case, *, quick: bool = False) -> list[Variation]:
    values = SMALL if quick else FULL
    return [(size, teacher if size == "points" else student, some) for size, some in values.items()]


FULL: dict[str, tuple[int, ...]] = {
    "cameras": (2, 4, 6),
    "image width": (176, 352, 528),
    "depth bins": (30, 59, 118),
    "BEV cells a side": (32, 64, 128),
    "batch": (1, 2),
    "points": (60_000, 120_000, 240_000),
}
SMALL: dict[str, tuple[int, ...]] = {
    "cameras": (2, 6),
    "image width": (96, 192),
    "depth bins": (59, 118),
    "BEV cells a side": (24, 48),
    "batch": (1, 2),
    "points": (10_000, 125_000),
}
"""Sizes of each table, full and quick; those of the case itself are among them where it is a student."""


def small_student() -> Case:
    """The synthetic student as it is."""
    return _as_it_is("synthetic/student")


def small_teacher() -> Case:
    """The synthetic teacher as it is."""
    return _as_it_is("synthetic/teacher-centerpoint")


def _as_it_is(recipe: str) -> Case:
    """In the batches it is trained in: the fixed cost of many operations weighs in a step so small."""
    experiment = find(recipe).build()
    batch = experiment.training.batch_size
    return Case(name=f"{recipe}, batch {batch}", experiment=experiment, batch=batch)


def half_student() -> Case:
    """`nuscenes/student` with images and map of half the side, in float32: its parts cost a quarter each, so that their
    proportions are those of the recipe, and exponents too."""
    experiment = find("nuscenes/student").build()
    assert experiment.student is not None
    height, width = experiment.data.image_size
    bev = replace(experiment.student.bev, cell=2 * experiment.student.bev.cell)
    experiment = replace(
        experiment,
        data=replace(experiment.data, image_size=(height // 2, width // 2)),
        student=replace(experiment.student, bev=bev),
        training=replace(experiment.training, precision="32"),
    )
    return Case(name=f"nuscenes/student at {height // 2}x{width // 2}", experiment=experiment)


def half_teacher() -> Case:
    """`nuscenes/teacher-centerpoint` on a map of half the side, its pillars as large as they are."""
    experiment = find("nuscenes/teacher-centerpoint").build()
    assert experiment.teacher is not None
    reach = experiment.teacher.reach / 2
    low, high = experiment.data.point_range[2::3]
    data = replace(experiment.data, point_range=(-reach, -reach, low, reach, reach, high), box_reach=reach)
    teacher = replace(experiment.teacher, reach=reach)
    return Case(
        name=f"nuscenes/teacher-centerpoint within {reach} m",
        experiment=replace(experiment, data=data, teacher=teacher),
        points=60_000,
    )


def scaling_rows(variations: Sequence[Variation], recipes: Sequence[Case], *, repeats: int) -> list[Row]:
    """A table of each variation, then one of `recipes`. A step that several tables show is measured once; all of them
    take turns."""
    tables = [(size, base, [base.resized(size, value) for value in values]) for size, base, values in variations]
    cases = {case.name: case for *_, some in (*tables, ("", None, recipes)) for case in some}
    facts = {name: case.facts() for name, case in cases.items()}
    steps = [
        # A processor without bf16 takes many times as long.
        Variant(name=name, run=case.rehearsal().step, repeats=1 if facts[name].precision == "bf16" else None)
        for name, case in cases.items()
    ]
    measured = {row.name: row for row in measure("", steps, repeats=repeats)}
    threads = f"{torch.get_num_threads()} threads"
    rows = []
    for size, base, some in tables:
        rows += _table(size, f"scaling with {size}: {base.name} ({threads})", some, measured, facts)
    first = measured[recipes[0].name].milliseconds
    for case in recipes:
        row = measured[case.name]
        rows.append(
            replace(
                row,
                benchmark=f"steps of different recipes ({threads})",
                ratio=first / row.milliseconds,
                facts=plain_facts(facts[case.name]),
            )
        )
    return rows


def _table(
    size: str, setting: str, cases: Sequence[Case], measured: dict[str, Row], facts: dict[str, Facts]
) -> list[Row]:
    """Rows of one variation; their ratios are to its first."""
    own = [measured[case.name] for case in cases]
    values = [case.sizes[size] for case in cases]
    growth = growth_of(values, [row.milliseconds for row in own], [row.peak_mib for row in own])
    said = f"time ~ {size}^{growth.time:.2f}"
    if growth.memory is not None:
        said += f", memory ~ {size}^{growth.memory:.2f}"
    return [
        replace(
            row,
            benchmark=setting,
            name=f"{size} {value}" + (f" ({said})" if value == values[-1] else ""),
            ratio=own[0].milliseconds / row.milliseconds,
            facts=plain_facts(msgspec.structs.replace(facts[case.name], varied=size, growth=growth)),
        )
        for case, value, row in zip(cases, values, own, strict=True)
    ]
