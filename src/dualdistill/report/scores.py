"""The scores of one model, the tables made of them, and confidence intervals of means over a few seeds."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scipy.special import stdtrit

from dualdistill.report.table import Column, Table, Value

TP_ERRORS = {"trans_err": "mATE", "scale_err": "mASE", "orient_err": "mAOE", "vel_err": "mAVE", "attr_err": "mAAE"}
"""The five true-positive errors: key of the nuScenes devkit, and common name."""

PERCENT: dict[str, Any] = {"digits": 1, "scale": 100.0}
"""Format of a score in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow:
    """Scores of one model under the names of the nuScenes devkit; None for what is unknown."""

    name: str
    teacher: str | None = None
    teacher_mean_ap: float | None = None
    teacher_nd_score: float | None = None
    is_teacher: bool = False
    """Whether the model is shown for reference only and does not compete for best values."""
    mean_ap: float | None = None
    """mAP, in [0, 1]."""
    nd_score: float | None = None
    """NDS, in [0, 1]."""
    trans_err: float | None = None
    """mATE, metres."""
    scale_err: float | None = None
    """mASE, 1 - IoU."""
    orient_err: float | None = None
    """mAOE, radians."""
    vel_err: float | None = None
    """mAVE, metres a second."""
    attr_err: float | None = None
    """mAAE, 1 - accuracy."""
    gain_mean_ap: float | None = None
    """Difference in mAP to the baseline."""
    gain_nd_score: float | None = None
    interval_mean_ap: tuple[float, float] | None = None
    """95 % interval of the gain in mAP."""
    interval_nd_score: tuple[float, float] | None = None
    published_mean_ap: float | None = None
    """Result in the literature, in [0, 1]."""
    published_nd_score: float | None = None
    steps: int | None = None
    seeds: int | None = None
    """Number of runs that were averaged."""
    spread: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation over the runs, by field."""

    @classmethod
    def from_metrics(cls, name: str, metrics: Mapping[str, Any], **known: Any) -> "ResultRow":
        """A row from the metrics of an evaluation (keys of the devkit's `metrics_summary.json`). `known`: other fields
        of the row."""
        errors = metrics.get("tp_errors", {})
        scores = {"mean_ap": metrics["mean_ap"], "nd_score": metrics["nd_score"]}
        scores |= {key: errors.get(key) for key in TP_ERRORS}
        known |= {key: _known(value) for key, value in scores.items()}
        return cls(name=name, **known)

    @classmethod
    def mean_of(cls, rows: Sequence["ResultRow"]) -> "ResultRow":
        """One row for several seeds of one experiment: means, and sample standard deviations. All other fields are
        those of the first row."""
        fields = ("mean_ap", "nd_score", *TP_ERRORS, "gain_mean_ap", "gain_nd_score")
        values = {key: [v for row in rows if (v := _known(getattr(row, key))) is not None] for key in fields}
        known = {key: some for key, some in values.items() if some}
        means: dict[str, Any] = {key: statistics.fmean(some) for key, some in known.items()}
        spread = {key: statistics.stdev(some) for key, some in known.items() if len(some) > 1}
        return replace(rows[0], **means, spread=spread, seeds=len(rows))

    def gaining_over(self, baseline: "ResultRow") -> "ResultRow":
        """This row with its gain in mAP and NDS over `baseline`."""
        return replace(
            self,
            gain_mean_ap=_difference(self.mean_ap, baseline.mean_ap),
            gain_nd_score=_difference(self.nd_score, baseline.nd_score),
        )

    def values(self) -> dict[str, float | int | str | None]:
        """Column values by name."""
        hidden = {"spread", "is_teacher"}
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in hidden}
        return values | {name: written_interval(values[name]) for name in ("interval_mean_ap", "interval_nd_score")}


def results_table(rows: Sequence[ResultRow]) -> Table:
    """The main table: one row per model; columns without any value are left out.

    mAP, NDS and gains in percent and percentage points; errors in their own units (metres, 1 - IoU, radians,
    m/s, 1 - accuracy). Teachers do not compete for the best value.
    """
    columns = [
        Column(key="name", title="Model"),
        Column(key="teacher", title="Teacher", side=True),
        Column(key="teacher_mean_ap", title="Teacher mAP", **PERCENT, side=True),
        Column(key="teacher_nd_score", title="Teacher NDS", **PERCENT, side=True),
        Column(key="mean_ap", title="mAP", better="up", **PERCENT),
        Column(key="nd_score", title="NDS", better="up", **PERCENT),
        *(Column(key=key, title=title, digits=3, better="down", side=True) for key, title in TP_ERRORS.items()),
        Column(key="gain_mean_ap", title="Δ mAP", signed=True, **PERCENT),
        Column(key="interval_mean_ap", title="95 % (mAP)", side=True),
        Column(key="gain_nd_score", title="Δ NDS", signed=True, **PERCENT),
        Column(key="interval_nd_score", title="95 % (NDS)", side=True),
        Column(key="published_mean_ap", title="mAP publ.", **PERCENT, side=True),
        Column(key="published_nd_score", title="NDS publ.", **PERCENT, side=True),
        Column(key="steps", title="Steps", side=True),
        Column(key="seeds", title="Seeds", side=True),
    ]
    values = [row.values() for row in rows]
    filled = (column for column in columns if any(value[column.key] is not None for value in values))
    return Table(
        columns=tuple(filled),
        rows=tuple(values),
        spreads=tuple(row.spread for row in rows),
        ranked=tuple(not row.is_teacher for row in rows),
    )


def class_table(average_precisions: Mapping[str, Mapping[str, float]]) -> Table:
    """AP (percent) by class: one row per class in the order of the first model, one column per model, the mean last.
    `average_precisions`: AP in [0, 1] of each class (averaged over the distance thresholds), by model."""
    models = list(average_precisions)
    classes = list(dict.fromkeys(name for values in average_precisions.values() for name in values))
    columns = (Column(key="class", title="Class"), *(Column(key=model, title=model, **PERCENT) for model in models))
    rows: list[dict[str, Value]] = [
        {"class": name.replace("_", " "), **{model: average_precisions[model].get(name) for model in models}}
        for name in classes
    ]
    means = {model: mean_of_known(average_precisions[model].values()) for model in models}
    return Table(columns=columns, rows=(*rows, {"class": "mean", **means}), summary=True)


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are known: neither None nor NaN; None without any."""
    known = [value for value in map(_known, values) if value is not None]
    return statistics.fmean(known) if known else None


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Confidence interval of the mean of independent draws, by Student's t; None for fewer than two."""
    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, (1 + confidence) / 2)) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def written_interval(interval: tuple[float, float] | None) -> str | None:
    """An interval of a share in percentage points, such as "[+0.5, +4.5]"."""
    return interval and "[{:+.1f}, {:+.1f}]".format(*(100 * bound for bound in interval)).replace("-", "−")
