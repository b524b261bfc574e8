"""What the runs of a study say together: means over seeds, paired differences, how sure they are."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dualdistill.errors import UserError
from dualdistill.evaluate.bootstrap import interval
from dualdistill.recipes.published import PUBLISHED, Published
from dualdistill.report.intervals import mean_interval
from dualdistill.science.record import Result
from dualdistill.science.study import Row, Study, StudyTable

Metric = Literal["mean_ap", "nd_score"]
METRICS: dict[Metric, str] = {"mean_ap": "mAP", "nd_score": "NDS"}

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A row minus the reference, paired by seed."""

    by_seed: dict[int, float]
    """At least one."""
    seeds: Interval | None
    """95 % of the mean, by Student's t over the pairs: had other seeds been drawn. None for one pair."""
    scenes: Interval | None
    """95 % of the mean, by bootstrap over validation scenes: had these networks met other scenes."""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.by_seed.values())

    @property
    def sign(self) -> int:
        """Of the mean where its interval over seeds leaves out zero; otherwise 0."""
        if self.seeds is None or self.seeds[0] <= 0 <= self.seeds[1]:
            return 0
        return 1 if self.mean > 0 else -1


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of a table with its runs."""

    row: Row
    results: tuple[Result, ...]
    """By seed."""
    reference: tuple[Result, ...]
    is_reference: bool
    published: Published | None
    published_reference: Published | None

    def values(self, of: Callable[[Result], float | None]) -> list[float]:
        """One for each run that has it."""
        return [value for result in self.results if (value := of(result)) is not None]

    def mean(self, metric: Metric) -> float:
        return statistics.fmean(self.values(lambda result: getattr(result.scores, metric)))

    def spread(self, metric: Metric) -> float | None:
        """Sample standard deviation over seeds."""
        values = self.values(lambda result: getattr(result.scores, metric))
        return statistics.stdev(values) if len(values) > 1 else None

    def paired(self, of: Callable[[Result], float | None]) -> dict[int, float]:
        """Differences to the reference run of the same seed."""
        known = {result.seed: of(result) for result in self.reference}
        found = {}
        for result in self.results:
            here, there = of(result), known.get(result.seed)
            if here is not None and there is not None:
                found[result.seed] = here - there
        return found

    def difference(self, metric: Metric) -> Difference | None:
        """None for the reference, and where no seed is shared."""
        by_seed = self.paired(lambda result: getattr(result.scores, metric))
        if self.is_reference or not by_seed:
            return None
        return Difference(
            by_seed=by_seed,
            seeds=mean_interval(list(by_seed.values())),
            scenes=self._over_scenes(metric, set(by_seed)),
        )

    def published_difference(self, metric: Metric) -> float | None:
        """In [0, 1]."""
        if self.is_reference or self.published is None or self.published_reference is None:
            return None
        name = {"mean_ap": "mean_ap", "nd_score": "nds"}[metric]
        return (getattr(self.published, name) - getattr(self.published_reference, name)) / 100

    def verdict(self, metric: Metric) -> str:
        """Whether the sign of the published difference was seen here."""
        here, there = self.difference(metric), self.published_difference(metric)
        if here is None or there is None:
            return ""
        if here.seeds is None:
            return "one seed"
        if here.sign == 0:
            return "undecided"
        return "agrees" if here.sign * there > 0 else "disagrees"

    def _over_scenes(self, metric: Metric, seeds: set[int]) -> Interval | None:
        draws = {
            group: [
                np.array(getattr(result.scores, f"replicates_{metric}")) for result in results if result.seed in seeds
            ]
            for group, results in (("own", self.results), ("reference", self.reference))
        }
        lengths = {len(one) for group in draws.values() for one in group}
        if len(lengths) != 1 or lengths == {0}:
            return None
        return interval(np.mean(draws["own"], axis=0) - np.mean(draws["reference"], axis=0))


def lines_of(table: StudyTable, results: Sequence[Result]) -> list[Line]:
    """The rows of a table that have at least one run."""
    by_row: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.seed):
        by_row.setdefault(result.row, []).append(result)
    (reference,) = (row for row in table.rows if row.key == table.reference)
    return [
        Line(
            row=row,
            results=tuple(by_row[row.key]),
            reference=tuple(by_row.get(reference.key, ())),
            is_reference=row.key == reference.key,
            published=_published(row),
            published_reference=_published(reference),
        )
        for row in table.rows
        if row.key in by_row
    ]


def _published(row: Row) -> Published | None:
    """What the literature reports for the recipe of that name at full size; a row with settings of its own has none."""
    return None if row.sets else PUBLISHED.get(row.short)


def check_comparable(results: Sequence[Result]) -> list[str]:
    """Sentences about what a reader should know before comparing.

    Raises:
        UserError: if the runs were made on different worlds.
    """
    worlds = {str(result.identity["world"]): result for result in results}
    if len(worlds) > 1:
        names = ", ".join(f"{result.file_name}" for result in list(worlds.values())[:2])
        raise UserError(f"These results are of {len(worlds)} different worlds, such as {names}: keep them apart.")
    students = [result for result in results if result.compared]
    notes = []
    if len({result.samples for result in students}) > 1:
        notes.append("The students were not all trained for the same number of samples.")
    by_teacher: dict[str, set[str]] = {}
    for result in students:
        if result.teacher is not None:
            by_teacher.setdefault(result.teacher.recipe, set()).add(result.teacher.sha256)
    notes += [
        f"Students of {recipe} learnt from {len(weights)} different weights files of it (it was trained again)."
        for recipe, weights in by_teacher.items()
        if len(weights) > 1
    ]
    commits = {result.commit for result in results}
    if len(commits) > 1:
        notes.append(f"The runs were made by {len(commits)} different commits.")
    return notes


def missing_runs(study: Study, results: Sequence[Result]) -> list[str]:
    """Rows and seeds of the study that are not there yet."""
    there = {(result.row, result.seed) for result in results}
    return [f"{key} seed {seed}" for key in study.rows() for seed in study.seeds if (key, seed) not in there]
