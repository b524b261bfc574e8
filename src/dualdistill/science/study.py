"""What is compared: tables of recipes, trained on one world with the same seeds and the same budget."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment, Role
from dualdistill.experiment.overrides import override
from dualdistill.recipes.catalogue import RECIPES, find
from dualdistill.science.record import PRETRAINING
from dualdistill.synthetic import BENCH, TINY
from dualdistill.synthetic.config import SyntheticConfig

Start = Literal["student.image.pretrained", "student.pretrained"]
"""The setting that names the pretraining student's weights."""

BASELINE = "student"
"""Key of the row without a teacher, to which all others are compared."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method of a table. The same row may stand in several tables: it is trained once."""

    recipe: str
    name: str
    """As a reader knows it."""
    sets: tuple[str, ...] = ()
    """Own overrides, `a.b=c`; a row that has some needs a key of its own."""
    key: str = ""
    """Name of its files; empty takes the recipe's name without the family."""

    def __post_init__(self) -> None:
        if self.sets and not self.key:
            raise ValueError(f"the row {self.name!r} changes its recipe and so needs a key of its own")
        if not self.key:
            object.__setattr__(self, "key", self.recipe.rpartition("/")[2])

    @property
    def short(self) -> str:
        """Name of the recipe without the family."""
        return self.recipe.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """Rows that are read together."""

    key: str
    title: str
    rows: tuple[Row, ...]
    reference: str = BASELINE
    """Key of the row that differences are taken to."""
    note: str = ""

    def __post_init__(self) -> None:
        if self.reference not in [row.key for row in self.rows]:
            raise ValueError(f"table {self.key}: the reference {self.reference!r} is none of its rows")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that decides the results of an experiment, but the code."""

    name: str
    summary: str
    world: SyntheticConfig
    tables: tuple[StudyTable, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the students: the same for every row, so that runs pair up."""
    teacher_seed: int = 0
    """One teacher of a kind teaches all students, as in the papers; so does one label encoder."""
    pretraining: Row | None = None
    """A student trained before all others, which they start from; None: they start from random weights."""
    start: Start = "student.image.pretrained"
    """What they take of it: its image backbone, as the papers start from ImageNet, or everything."""
    sets: Mapping[Role, tuple[str, ...]] = field(default_factory=dict)
    """Overrides for every experiment of a role, the budget among them."""
    distilled_sets: tuple[str, ...] = ()
    """Overrides for every distilled student, beside those of its role."""
    bands: tuple[float, ...] = (0.0, 15.0, 25.0, 38.0)
    """Borders of the distance bands in which AP is told apart, metres from the ego vehicle."""
    replicates: int = 200
    """Draws of validation scenes for the intervals over scenes."""

    def __post_init__(self) -> None:
        known: dict[str, Row] = {self.pretraining.key: self.pretraining} if self.pretraining else {}
        for row in self.all_rows():
            same = known.setdefault(row.key, row)
            if (same.recipe, same.sets) != (row.recipe, row.sets):
                raise ValueError(f"the key {row.key!r} stands for two rows: {same} and {row}")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"seeds must be different and at least one, got {self.seeds}")
        if list(self.bands) != sorted(set(self.bands)) or len(self.bands) < 2:
            raise ValueError(f"bands need rising borders, got {self.bands}")

    def all_rows(self) -> Iterator[Row]:
        """Of all tables, repeated where they stand in several."""
        for table in self.tables:
            yield from table.rows

    def rows(self) -> dict[str, Row]:
        """Each row once, in the order of the tables."""
        return {row.key: row for row in self.all_rows()}

    def experiment(self, recipe: str, sets: tuple[str, ...] = ()) -> tuple[Experiment, list[str]]:
        """The resolved experiment of a recipe in this study, and the overrides that make it."""
        base = find(recipe).build()
        distilled = self.distilled_sets if base.distiller is not None else ()
        overrides = [*self.sets.get(base.role, ()), *distilled, *sets]
        return override(base, overrides), overrides

    def present(self) -> tuple["Study", list[str]]:
        """The study with the rows whose recipes exist, and the recipes that do not."""
        absent = [row.recipe for row in self.rows().values() if row.recipe not in RECIPES]
        tables = [
            dataclasses.replace(table, rows=tuple(row for row in table.rows if row.recipe not in absent))
            for table in self.tables
            if all(row.recipe not in absent for row in table.rows if row.key == table.reference)
        ]
        return dataclasses.replace(self, tables=tuple(tables)), absent


def needed_recipes(experiment: Experiment) -> tuple[str, ...]:
    """Recipes whose trained weights an experiment takes."""
    fields = (f.name for f in dataclasses.fields(experiment) if f.name.endswith("_recipe"))
    return tuple(recipe for name in fields if (recipe := getattr(experiment, name)) is not None)


def find_study(name: str) -> Study:
    """
    Raises:
        UserError: if there is no study of that name.
    """
    if name not in STUDIES:
        raise UserError(f"There is no study {name!r}; there are: {', '.join(STUDIES)}.")
    return STUDIES[name]


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """ "0,1,2" as numbers.

    Raises:
        UserError: for anything else.
    """
    if text is None:
        return None
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--seeds takes whole numbers separated by commas, such as 0,1,2; got {text!r}.") from None
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds {text}: one of them stands there twice.")
    return seeds


def _rows(*rows: tuple[str, str]) -> tuple[Row, ...]:
    return tuple(Row(recipe=f"synthetic/{recipe}", name=name) for recipe, name in rows)


ABLATION_TEACHER = "mvp"
"""Of the tables below the main one: the teacher of the paper's ablations."""

_FULL = f"dualdistill-{ABLATION_TEACHER}"
_TABLES = (
    StudyTable(
        key="methods",
        title="Methods and teachers",
        rows=_rows(
            ("student", "no distillation"),
            ("tigbev-centerpoint", "TiG-BEV"),
            ("x3kd-centerpoint", "X3KD-style"),
            ("distillbev-centerpoint", "DistillBEV"),
            ("labeldistill-centerpoint", "LabelDistill"),
            ("dualdistill-centerpoint", "DualDistill"),
            ("distillbev-mvp", "DistillBEV, MVP"),
            ("dualdistill-mvp", "DualDistill, MVP"),
            ("dualdistill-mvp-plus", "DualDistill-plus, MVP"),
        ),
        note="Teacher: CenterPoint, or MVP where named (with perfect masks: the synthetic world's own).",
    ),
    StudyTable(
        key="over-distillbev",
        title="DualDistill over DistillBEV",
        rows=_rows(("distillbev-centerpoint", "DistillBEV"), ("dualdistill-centerpoint", "DualDistill")),
        reference="distillbev-centerpoint",
        note="The same two rows again, compared with each other: CenterPoint teaches.",
    ),
    StudyTable(
        key="over-distillbev-mvp",
        title="DualDistill over DistillBEV, MVP",
        rows=_rows(("distillbev-mvp", "DistillBEV, MVP"), ("dualdistill-mvp", "DualDistill, MVP")),
        reference="distillbev-mvp",
        note="The same under MVP.",
    ),
    StudyTable(
        key="parts",
        title="MFD and CRD",
        rows=_rows(
            ("student", "neither"),
            (f"{_FULL}-no-crd", "MFD"),
            (f"{_FULL}-no-mfd", "CRD"),
            (_FULL, "MFD and CRD"),
        ),
    ),
    StudyTable(
        key="alignment",
        title="Alignment",
        rows=_rows(
            (f"{_FULL}-upsample-conv", "Upsample-Conv x3"),
            (f"{_FULL}-attention", "attention only"),
            (f"{_FULL}-orthogonal", "projector only"),
            (f"{_FULL}-aoa-released", "AOA, released projector (collapses)"),
            (_FULL, "AOA"),
        ),
        reference=f"{_FULL}-upsample-conv",
    ),
    StudyTable(
        key="labels",
        title="Labels of CRD",
        rows=_rows(
            (f"{_FULL}-ground-truth", "annotations"),
            (f"{_FULL}-temperature-1.0", "teacher, temperature 1.0"),
            (f"{_FULL}-temperature-0.5", "teacher, temperature 0.5"),
            (_FULL, "teacher, temperature 0.1"),
        ),
        reference=f"{_FULL}-ground-truth",
    ),
    StudyTable(
        key="budget",
        title="Budget",
        rows=(
            Row(recipe="synthetic/student", name="no distillation"),
            Row(
                recipe="synthetic/student",
                name="no distillation, twice the steps",
                key="student-twice",
                sets=("training.steps=1000",),
            ),
        ),
        note="What the same student gains from more of the same.",
    ),
)

_BUDGETS: dict[Role, tuple[str, ...]] = {
    "teacher": ("training.steps=2000",),
    "label_encoder": ("training.steps=1000",),
    "student": ("training.steps=500", "training.cache_precision=fp16", "init_head_from_teacher=false"),
}
_SAVED_OFTEN = "training.save_every=100"

_FROM_THE_IMAGE_BACKBONE: dict[Role, tuple[str, ...]] = _BUDGETS | {"student": ("training.steps=600",)}

_A_HANDFUL = ("training.steps=4", "training.batch_size=2", "training.log_every=1", "training.save_every=2")

_PRETRAINING = Row(recipe="synthetic/student", name="pretraining", key=PRETRAINING, sets=("training.steps=3000",))

STUDIES: dict[str, Study] = {
    "paper": Study(
        name="paper",
        summary="the paper's tables on the bench-size synthetic world, from a trained student on: hours",
        world=dataclasses.replace(BENCH, seed=100),
        tables=_TABLES,
        seeds=(2, 3, 4),
        pretraining=_PRETRAINING,
        start="student.pretrained",
        sets={role: (*budget, _SAVED_OFTEN) for role, budget in _BUDGETS.items()},
        distilled_sets=("training.distiller_warmup_steps=100",),
    ),
    "long": Study(
        name="long",
        summary="the methods, from a student trained three times as long as that of `paper`: hours",
        world=dataclasses.replace(BENCH, seed=100),
        tables=(*_TABLES[:3], _TABLES[-1]),
        seeds=(2, 3, 4),
        pretraining=dataclasses.replace(_PRETRAINING, sets=("training.steps=9000",)),
        start="student.pretrained",
        sets={role: (*budget, _SAVED_OFTEN) for role, budget in _BUDGETS.items()},
        distilled_sets=("training.distiller_warmup_steps=100",),
    ),
    "short": Study(
        name="short",
        summary="the methods, from a pretrained image backbone on: students far from converged; hours",
        world=dataclasses.replace(BENCH, seed=100),
        tables=(dataclasses.replace(_TABLES[0], rows=_TABLES[0].rows[:7]), _TABLES[1]),
        seeds=(1, 2, 3, 4, 5, 6),
        pretraining=_PRETRAINING,
        sets={role: (*budget, _SAVED_OFTEN) for role, budget in _FROM_THE_IMAGE_BACKBONE.items()},
    ),
    "smoke": Study(
        name="smoke",
        summary="two rows, two seeds, a tiny world, a handful of steps: shows that the command works, proves nothing",
        world=TINY,
        tables=(
            StudyTable(
                key="methods",
                title="Methods",
                rows=_rows(("student", "no distillation"), ("dualdistill-centerpoint", "DualDistill")),
            ),
        ),
        seeds=(0, 1),
        pretraining=Row(recipe="synthetic/student", name="pretraining", key=PRETRAINING),
        sets=dict.fromkeys(get_args(Role), _A_HANDFUL),
        replicates=20,
    ),
}
