"""Runs compared in one table: one row per method, means over seeds, gains over the student without a teacher.

Runs with the same recipe, settings and teacher make one row. The gain of a distilled run is its difference to the
undistilled student of the same seed, settings and data, if that is among the runs.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from dualdistill.experiment.plain import differences
from dualdistill.report.scores import TP_ERRORS, ResultRow, mean_interval, mean_of_known, results_table
from dualdistill.report.table import Table

_WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {"training": ("save_every", "log_every")}
"""Settings that do not change results."""
_ORDER = ("teacher", "label_encoder", "student")
"""Order of the rows, by role."""
_FOR_THE_TEACHER: dict[str, tuple[str, ...]] = {"data": ("points", "virtual_points", "depth_instance", "instances")}
"""Data settings of a distilled student that only its teacher or distiller needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherRecord:
    """The teacher or the label encoder of a run."""

    recipe: str
    step: int | None
    mean_ap: float | None = None
    """mAP of the teacher in [0, 1]; None if it was never evaluated."""
    nd_score: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """A finished and evaluated run, read from its folder."""

    path: str
    recipe: str
    overrides: tuple[str, ...]
    seed: int
    role: Literal["teacher", "label_encoder", "student"]
    experiment: Mapping[str, Any]
    """The resolved experiment as plain JSON."""
    data: str
    """Data of training and evaluation; only runs with equal data are compared."""
    metrics: Mapping[str, Any]
    """Metrics with the keys of the devkit's `metrics_summary.json`."""
    step: int
    """Step of the evaluated checkpoint."""
    finished: float = 0.0
    """End of the run, seconds since the epoch: the later of two runs with one seed counts."""
    teacher: TeacherRecord | None = None
    label_encoder: TeacherRecord | None = None
    published: tuple[float, float, str] | None = None
    """Published mAP and NDS of the recipe in [0, 1], and the source."""

    @property
    def distilled(self) -> bool:
        return self.experiment.get("distiller") is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedRow:
    """One method: means over its runs."""

    scores: ResultRow
    runs: tuple[RunRecord, ...]
    """Runs in the order of their seeds."""
    pairs: tuple[int, ...]
    """Seeds that also have an undistilled student."""

    def plain(self) -> dict[str, Any]:
        """The row as JSON values: scores and gains in [0, 1], unrounded; None for what is unknown."""
        first = self.runs[0]
        kept: tuple[str, ...] = ("name", "teacher", "mean_ap", "nd_score", *TP_ERRORS, "gain_mean_ap", "gain_nd_score")
        kept += ("teacher_mean_ap", "teacher_nd_score", "published_mean_ap", "published_nd_score", "seeds")
        values = self.scores.values()
        return {
            **{key: values[key] for key in kept},
            "published_source": first.published[2] if first.published else None,
            "standard_deviation": dict(self.scores.spread),
            "gain_mean_ap_interval": self.scores.interval_mean_ap,
            "gain_nd_score_interval": self.scores.interval_nd_score,
            "recipe": first.recipe,
            "overrides": list(first.overrides),
            "role": first.role,
            "data": first.data,
            "runs": [{"path": run.path, "seed": run.seed, "step": run.step} for run in self.runs],
            "paired_seeds": list(self.pairs),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The methods that were trained and evaluated on the same data."""

    data: str
    rows: tuple[ComparedRow, ...]
    notes: tuple[str, ...]
    """Remarks on the table, one sentence each."""

    def table(self) -> Table:
        """The comparison as a table."""
        return results_table([row.scores for row in self.rows])


def compare(records: Iterable[RunRecord]) -> list[Comparison]:
    """One comparison per data set, in the order of their names."""
    by_data: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        by_data[record.data].append(record)
    return [_comparison(data, by_data[data]) for data in sorted(by_data)]


def _comparison(data: str, records: list[RunRecord]) -> Comparison:
    groups: dict[str, dict[int, RunRecord]] = defaultdict(dict)
    notes = []
    for record in sorted(records, key=lambda record: record.finished):
        group = groups[_group(record)]
        if record.seed in group:
            notes.append(f"{group[record.seed].path} is left out, because a later run has the same settings and seed.")
        group[record.seed] = record
    kept = sorted(
        ([group[seed] for seed in sorted(group)] for group in groups.values()),
        key=lambda runs: (_ORDER.index(runs[0].role), runs[0].distilled, runs[0].recipe, runs[0].overrides),
    )
    names, shared = _names(kept)
    rows = [_row(name, runs, kept) for name, runs in zip(names, kept, strict=True)]
    if shared:
        notes.insert(0, f"All runs have {', '.join(shared)}.")
    if any(len(row.pairs) > 1 for row in rows):
        notes.append(
            "Gains are mean differences between runs of the same seed; 95 % intervals by Student's t over the seeds."
        )
    elif any(row.pairs for row in rows):
        notes.append("Each gain is from a single pair of runs and may be noise: train more seeds.")
    notes += [
        f"{row.scores.name} has no gain: no undistilled student with its settings and seeds is among the runs."
        for row in rows
        if row.runs[0].distilled and not row.pairs
    ]
    notes += [
        f"{row.scores.name} gets the annotations as its input: it measures how well the teacher's head decodes them."
        for row in rows
        if row.runs[0].role == "label_encoder"
    ]
    sources = {row.scores.name: row.runs[0].published for row in rows}
    notes += [f"Source of the published {name}: {found[2]}." for name, found in sources.items() if found]
    return Comparison(data=data, rows=tuple(rows), notes=tuple(notes))


def _row(name: str, runs: list[RunRecord], groups: list[list[RunRecord]]) -> ComparedRow:
    baselines = _baselines(runs[0], groups) if runs[0].distilled else {}
    rows, gains = [], []
    for run in runs:
        row = _scores(name, run)
        if run.seed in baselines:
            row = row.gaining_over(_scores(name, baselines[run.seed]))
            gains.append(row)
        rows.append(row)
    teachers = list({(run.teacher.mean_ap, run.teacher.nd_score): run.teacher for run in runs if run.teacher}.values())
    scores = replace(
        ResultRow.mean_of(rows),
        teacher_mean_ap=mean_of_known(teacher.mean_ap for teacher in teachers),
        teacher_nd_score=mean_of_known(teacher.nd_score for teacher in teachers),
        interval_mean_ap=mean_interval([g.gain_mean_ap for g in gains if g.gain_mean_ap is not None]),
        interval_nd_score=mean_interval([g.gain_nd_score for g in gains if g.gain_nd_score is not None]),
    )
    return ComparedRow(scores=scores, runs=tuple(runs), pairs=tuple(r.seed for r in runs if r.seed in baselines))


def _scores(name: str, run: RunRecord) -> ResultRow:
    published = run.published or (None, None, "")
    return ResultRow.from_metrics(
        name,
        run.metrics,
        teacher=run.teacher.recipe if run.teacher else None,
        is_teacher=run.role != "student",
        published_mean_ap=published[0],
        published_nd_score=published[1],
    )


def _baselines(distilled: RunRecord, groups: list[list[RunRecord]]) -> dict[int, RunRecord]:
    """The runs of the same student without a teacher, by seed."""
    wanted = _student(distilled)
    found = [runs for runs in groups if runs[0].role == "student" and not runs[0].distilled]
    return {run.seed: run for runs in found if _student(runs[0]) == wanted for run in runs}


def _student(run: RunRecord) -> Mapping[str, Any]:
    """The settings that a student has with and without a teacher."""
    settings = _without(run.experiment, _WITHOUT_EFFECT | _FOR_THE_TEACHER)
    return {key: settings[key] for key in ("student", "training", "data")}


def _group(run: RunRecord) -> str:
    teachers = [(one.recipe, one.step) for one in (run.teacher, run.label_encoder) if one]
    return json.dumps([run.recipe, _without(run.experiment, _WITHOUT_EFFECT), teachers], sort_keys=True)


def _without(experiment: Mapping[str, Any], left_out: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {
        section: {key: value for key, value in settings.items() if key not in left_out[section]}
        if section in left_out
        else settings
        for section, settings in experiment.items()
    }


def _names(groups: list[list[RunRecord]]) -> tuple[list[str], list[str]]:
    """The shortest distinct name of each group, and the overrides that all groups have."""
    every = [runs[0] for runs in groups]
    shared = [text for text in every[0].overrides if all(text in run.overrides for run in every)] if every[1:] else []

    def name(run: RunRecord) -> str:
        own = [text for text in run.overrides if text not in shared]
        return f"{run.recipe} ({', '.join(own)})" if own else run.recipe

    def namesakes(run: RunRecord) -> list[RunRecord]:
        return [other for other in every if other is not run and name(other) == name(run)]

    return [f"{name(run)}{_distinction(run, namesakes(run))}" for run in every], shared


def _distinction(run: RunRecord, namesakes: list[RunRecord]) -> str:
    """The settings, or the teacher, in which a run differs from others of its name."""
    if not namesakes:
        return ""
    own = {key: value for other in namesakes for key, value, _ in differences(run.experiment, other.experiment)}
    words = [f"{key}={json.dumps(value)}" for key, value in list(own.items())[:3]]
    if run.teacher and any(other.teacher != run.teacher for other in namesakes):
        words.append(f"teacher at step {run.teacher.step}")
    return f" [{', '.join(words) or 'other settings'}]"
