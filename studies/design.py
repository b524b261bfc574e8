"""What is compared: rows, budgets, seeds, and everything they share."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from dualdistill.synthetic import BENCH, DEMO, TINY
from dualdistill.synthetic.config import SyntheticConfig

Kind = Literal["centerpoint", "mvp", "mvp-oracle"]
"""A teacher; "mvp-oracle" takes perfect masks, as no segmenter gives."""

STUDENT = "student"
"""Key of the row without a teacher."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method under one teacher."""

    key: str
    name: str
    recipe: str
    teacher: Kind | None = None
    sets: tuple[str, ...] = ()
    """Changes of the recipe, `a.b=c`."""
    cached: bool = True
    """Whether the teacher's output is read from a cache; a method that compares its finest maps runs it instead."""
    budgets: tuple[int, ...] = ()
    """Numbers of training samples; empty takes the study's."""

    @property
    def control(self) -> str | None:
        """Key of the row that takes the same teacher's head and nothing else of it; None for controls themselves."""
        key = f"head-{self.teacher}"
        return None if self.teacher in (None, "mvp-oracle") or self.key == key else key

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the shared weights that this row learns from."""
        if self.teacher is None:
            return ()
        guides = ("teacher", "label-encoder") if "/labeldistill" in self.recipe else ("teacher",)
        return tuple(f"{guide}-{self.teacher}" for guide in guides)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training and its evaluation."""

    row: Row
    budget: int
    seed: int

    @property
    def key(self) -> str:
        return f"{self.row.key}/{self.budget}/{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Network:
    """Trained weights that all runs share: a teacher, or a label encoder."""

    recipe: str
    sets: tuple[str, ...] = ()
    teacher: Kind | None = None
    """Of a label encoder: the teacher whose head reads it."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that decides the results but the code."""

    name: str
    summary: str
    record: str = ""
    """Name of the study in whose result file the runs are; empty: its own."""
    world: SyntheticConfig
    rows: tuple[Row, ...]
    seeds: dict[int, tuple[int, ...]]
    """Of each budget, a number of training samples."""
    networks: dict[str, Network]
    """By name of the weights file, without its suffix."""
    batch: int = 4
    scenes: int | None = None
    """Of the world's training scenes the students see the first so many; None: all."""
    student_sets: tuple[str, ...] = ()
    """Changes of every student's recipe."""
    distilled_sets: tuple[str, ...] = ()
    """Changes of every recipe with a teacher, beside those."""
    backbone: str | None = None
    """Name of the weights file whose image backbone all students start from; None: random weights."""
    noises: tuple[float, ...] = ()
    """Amounts of mask noise that virtual points are made with."""

    def jobs(self) -> Iterator[Job]:
        """Seed by seed, all smaller budgets before the largest."""
        budgets = sorted(self.seeds)
        for group in (budgets[:-1], budgets[-1:]):
            for seed in dict.fromkeys(seed for budget in group for seed in self.seeds[budget]):
                for budget in group:
                    for row in self.rows:
                        if seed in self.seeds[budget] and budget in (row.budgets or self.seeds):
                            yield Job(row=row, budget=budget, seed=seed)

    @property
    def split(self) -> str:
        """Name of the training split in the world's `splits.json`."""
        return "train" if self.scenes is None else f"first-{self.scenes}"

    def settings(self, job: Job) -> list[str]:
        """All changes of a job's recipe, without paths."""
        steps = [f"training.steps={job.budget // self.batch}", f"training.batch_size={self.batch}"]
        return [*steps, *self.student_sets, *(self.distilled_sets if job.row.teacher else ()), *job.row.sets]


HEAD_ONLY = ("training.distill_fraction=0",)
BOUNDED = ("training.gradient_share=0.5",)
"""The recipe `-plus`."""
NOISE = "data.virtual_points.noise=1"
"""Of MVP's instance masks: its mAP is 1.20 times CenterPoint's then (published: 1.15)."""

NOISES = (1.0, 0.6, 0.0)

_TEACHER_SETS: dict[Kind, tuple[str, ...]] = {
    "centerpoint": (),
    # Depth labels are the LiDAR's under all teachers: rows differ in what teaches them alone.
    "mvp": (NOISE, "data.virtual_points.depth_from_virtual=false"),
    "mvp-oracle": ("data.virtual_points.depth_from_virtual=false",),
}


def _row(key: str, name: str, recipe: str, kind: Kind, *sets: str, **changes: Any) -> Row:
    return Row(
        key=key, name=name, recipe=f"synthetic/{recipe}", teacher=kind, sets=(*_TEACHER_SETS[kind], *sets), **changes
    )


ROWS = (
    Row(key=STUDENT, name="no distillation", recipe="synthetic/student"),
    _row("head-centerpoint", "CenterPoint's head alone", "dualdistill-centerpoint", "centerpoint", *HEAD_ONLY),
    _row("dualdistill-centerpoint", "DualDistill", "dualdistill-centerpoint", "centerpoint"),
    _row("dualdistill-centerpoint-plus", "DualDistill bounded", "dualdistill-centerpoint", "centerpoint", *BOUNDED),
    _row("head-mvp", "MVP's head alone", "dualdistill-mvp", "mvp", *HEAD_ONLY),
    _row("dualdistill-mvp", "DualDistill, MVP", "dualdistill-mvp", "mvp"),
    _row("dualdistill-mvp-plus", "DualDistill bounded, MVP", "dualdistill-mvp", "mvp", *BOUNDED),
    *(  # which part of DualDistill it is that MVP teaches badly
        _row(f"dualdistill-mvp-{part}", f"DualDistill, MVP, {name}", f"dualdistill-mvp-{part}", "mvp", budgets=(1200,))
        for part, name in (("no-mfd", "CRD alone"), ("no-crd", "MFD alone"), ("relative", "relative features"))
    ),
    _row("distillbev-centerpoint", "DistillBEV", "distillbev-centerpoint", "centerpoint"),
    _row("labeldistill-centerpoint", "LabelDistill", "labeldistill-centerpoint", "centerpoint"),
    _row("distillbev-mvp", "DistillBEV, MVP", "distillbev-mvp", "mvp"),
    _row("dualdistill-mvp-oracle", "DualDistill, MVP oracle", "dualdistill-mvp", "mvp-oracle", budgets=(6000,)),
    _row("tigbev-centerpoint", "TiG-BEV", "tigbev-centerpoint", "centerpoint"),
    _row("x3kd-centerpoint", "X3KD-style", "x3kd-centerpoint", "centerpoint", cached=False),
)


ABLATIONS = (
    *(row for row in ROWS if row.key in (STUDENT, "head-centerpoint", "dualdistill-centerpoint")),
    *(
        _row(f"dualdistill-centerpoint-{suffix}", name, f"dualdistill-centerpoint-{suffix}", "centerpoint")
        for suffix, name in (
            ("no-crd", "MFD alone"),
            ("no-mfd", "CRD alone"),
            ("upsample-conv", "Upsample-Conv x3 instead of AOA"),
            ("attention", "attention alone"),
            ("orthogonal", "projector alone"),
            ("aoa-released", "AOA, released projector (collapses)"),
            ("ground-truth", "CRD labels: annotations"),
            ("temperature-1.0", "CRD labels: teacher at 1.0"),
            ("temperature-0.5", "CRD labels: teacher at 0.5"),
        )
    ),
)
"""Parts of DualDistill; CRD labels are the teacher's at temperature 0.1 where nothing is said."""

FACTORS = (1 / 3, 1 / 10)
"""Tried on the weights of every method alike, beside 1."""


def scaled(row: Row, factor: float) -> Row:
    """The row with all distillation weights times `factor`; the row itself for a factor of 1."""
    if factor == 1:
        return row
    changes = (f"training.distill_weight={factor:.6g}",)
    return replace(
        row, key=f"{row.key}-x{factor:.2f}", name=f"{row.name}, weights x {factor:.2g}", sets=row.sets + changes
    )


METHODS = tuple(row for row in ROWS if row.control is not None and "plus" not in row.key and not row.budgets)
"""Rows that distil with published weights."""

TUNED = {
    "dualdistill-mvp": 1 / 10,
    "distillbev-centerpoint": 1 / 10,
    "distillbev-mvp": 1 / 10,
    "tigbev-centerpoint": 1 / 10,
}
"""Factors that study "tuning" chose, where it is not 1."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement that one row detects better than another."""

    text: str
    better: str
    worse: str


CLAIMS = (
    Claim(text="DualDistill > student", better="dualdistill-centerpoint", worse=STUDENT),
    Claim(
        text="DualDistill > student with CenterPoint's head", better="dualdistill-centerpoint", worse="head-centerpoint"
    ),
    Claim(text="DualDistill under MVP > student", better="dualdistill-mvp", worse=STUDENT),
    Claim(text="DualDistill under MVP > student with MVP's head", better="dualdistill-mvp", worse="head-mvp"),
    Claim(text="DualDistill > DistillBEV", better="dualdistill-centerpoint", worse="distillbev-centerpoint"),
    Claim(text="DualDistill > DistillBEV under MVP", better="dualdistill-mvp", worse="distillbev-mvp"),
    Claim(
        text="DualDistill > DistillBEV, factors chosen",
        better="dualdistill-centerpoint",
        worse="distillbev-centerpoint-x0.10",
    ),
    Claim(
        text="DualDistill > DistillBEV under MVP, factors chosen",
        better="dualdistill-mvp-x0.10",
        worse="distillbev-mvp-x0.10",
    ),
    Claim(
        text="DualDistill under MVP, factor chosen > student with MVP's head",
        better="dualdistill-mvp-x0.10",
        worse="head-mvp",
    ),
    Claim(
        text="DualDistill learns more from MVP than from CenterPoint",
        better="dualdistill-mvp",
        worse="dualdistill-centerpoint",
    ),
    Claim(text="AOA > Upsample-Conv", better="dualdistill-centerpoint", worse="dualdistill-centerpoint-upsample-conv"),
    Claim(text="MFD and CRD > MFD alone", better="dualdistill-centerpoint", worse="dualdistill-centerpoint-no-crd"),
    Claim(text="MFD and CRD > CRD alone", better="dualdistill-centerpoint", worse="dualdistill-centerpoint-no-mfd"),
    Claim(
        text="CRD labels: teacher at 0.1 > annotations",
        better="dualdistill-centerpoint",
        worse="dualdistill-centerpoint-ground-truth",
    ),
    Claim(text="(not in the paper) the head alone > student", better="head-centerpoint", worse=STUDENT),
    Claim(
        text="(not in the paper) DualDistill bounded > DualDistill",
        better="dualdistill-centerpoint-plus",
        worse="dualdistill-centerpoint",
    ),
    Claim(
        text="(not in the paper) DualDistill bounded > DualDistill under MVP",
        better="dualdistill-mvp-plus",
        worse="dualdistill-mvp",
    ),
    Claim(
        text="(not in the paper) DualDistill bounded > student with CenterPoint's head",
        better="dualdistill-centerpoint-plus",
        worse="head-centerpoint",
    ),
    Claim(
        text="(not in the paper) DualDistill bounded under MVP > student with MVP's head",
        better="dualdistill-mvp-plus",
        worse="head-mvp",
    ),
)

WORLD = replace(BENCH, name="study", seed=200, train_scenes=1500, val_scenes=150, key_frames=2, lead_in_sweeps=4)
"""3,000 key frames to train on, 300 to validate; half an hour of one core."""

_TEACHER_TRAINING = ("training.steps=2000", "training.batch_size=4")

MAIN = Study(
    name="main",
    summary="every method from an image backbone on, distilled from the first step, at three budgets",
    world=WORLD,
    rows=(*ROWS, *(scaled(row, TUNED[row.key]) for row in METHODS if row.key in TUNED)),
    seeds={1200: (1, 2, 3, 4, 5), 6000: (1, 2, 3, 4, 5), 18000: (1, 2, 3)},
    networks={
        "teacher-centerpoint": Network(recipe="synthetic/teacher-centerpoint", sets=_TEACHER_TRAINING),
        "teacher-mvp": Network(recipe="synthetic/teacher-mvp", sets=(*_TEACHER_TRAINING, NOISE)),
        "teacher-mvp-oracle": Network(recipe="synthetic/teacher-mvp", sets=_TEACHER_TRAINING),
        "label-encoder-centerpoint": Network(
            recipe="synthetic/label-encoder-centerpoint", sets=("training.steps=1000",), teacher="centerpoint"
        ),
    },
    # Batch and learning rate: chosen on seed 101 by the student alone at 1,200 samples (mAP / NDS). Batch 4 and the
    # recipe's rate: 4.3 / 14.3; batch 8 and that rate: 2.8 / 10.6; batch 8 and twice the rate: 4.1 / 12.6.
    student_sets=("student.image.frozen_stem=true",),
    distilled_sets=("training.cache_precision=fp16",),
    backbone="backbone",
    noises=(1.0, 0.0),
)

VARIANTS = ("batch", "repeats", "demo")
"""Studies whose settings differ from main's; the page compares what distillation gains under each."""
DEMO_ROWS = (STUDENT, "head-centerpoint", "dualdistill-centerpoint", "dualdistill-centerpoint-plus")

STUDIES = {
    "main": MAIN,
    "ablations": replace(
        MAIN,
        name="ablations",
        record="main",
        summary="parts of DualDistill under CenterPoint, recorded with main",
        rows=ABLATIONS,
        seeds={6000: (1, 2, 3, 4, 5)},
    ),
    "tuning": replace(
        MAIN,
        name="tuning",
        summary="one factor on the weights of every method, on seeds that no table has",
        rows=tuple(scaled(row, factor) for row in METHODS for factor in (1.0, *FACTORS)),
        seeds={1200: (101, 102)},
    ),
    "demo": replace(
        MAIN,
        name="demo",
        summary="the demo: near objects, half the batch, 200 scenes seen three times",
        world=DEMO,
        rows=tuple(row for row in ROWS if row.key in DEMO_ROWS),
        seeds={1200: (21, 31, 32, 33)},  # settings were chosen on 21, which no table has
        batch=2,
    ),
    "batch": replace(
        MAIN,
        name="batch",
        summary="half the batch, twice the steps",
        rows=tuple(row for row in ROWS if row.key in DEMO_ROWS[:3]),
        seeds={1200: (1, 2, 3)},
        batch=2,
    ),
    "repeats": replace(
        MAIN,
        name="repeats",
        summary="200 scenes seen three times",
        rows=tuple(row for row in ROWS if row.key in DEMO_ROWS[:3]),
        seeds={1200: (1, 2, 3)},
        scenes=200,
    ),
    "noise": replace(
        MAIN,
        name="noise",
        summary="MVP teachers from masks with more and more errors, to choose one; keep the weights apart: --weights",
        rows=(),
        seeds={},
        networks={
            f"teacher-mvp-noise-{noise:g}": Network(
                recipe="synthetic/teacher-mvp",
                sets=(*_TEACHER_TRAINING, *((f"data.virtual_points.noise={noise:g}",) if noise else ())),
            )
            for noise in NOISES
        },
        noises=NOISES,
    ),
    "smoke": Study(
        name="smoke",
        summary="two methods, two seeds, a tiny world, a handful of steps: shows that the command works, no more",
        world=TINY,
        rows=tuple(row for row in ROWS if row.key in (STUDENT, "head-centerpoint", "dualdistill-centerpoint")),
        seeds={4: (1, 2)},
        networks={
            "teacher-centerpoint": Network(
                recipe="synthetic/teacher-centerpoint", sets=("training.steps=2", "training.batch_size=2")
            )
        },
        batch=2,
        student_sets=("training.log_every=1",),
    ),
}
