"""What one model scored: the row all tables are made of."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

TP_ERRORS = {
    "trans_err": "mATE",
    "scale_err": "mASE",
    "orient_err": "mAOE",
    "vel_err": "mAVE",
    "attr_err": "mAAE",
}
"""The five true-positive errors: key of the nuScenes devkit, and the name everybody says."""

SCORES = ("mean_ap", "nd_score", *TP_ERRORS)
"""Fields of `ResultRow` that an evaluation yields."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow:
    """Scores of one model under the names of the nuScenes devkit; None for what is not known."""

    name: str
    teacher: str | None = None
    is_teacher: bool = False
    """A teacher is shown for reference and competes with nobody."""
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
    """mAP above the baseline."""
    gain_nd_score: float | None = None
    published_mean_ap: float | None = None
    """What the paper reports, in [0, 1]."""
    published_nd_score: float | None = None
    steps: int | None = None
    parameters: int | None = None
    """Of the deployed model; written in millions."""
    seeds: int | None = None
    """How many runs the scores are the mean of."""
    spread: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation over the runs, by field."""
    note: str = ""

    @classmethod
    def from_metrics(cls, name: str, metrics: Mapping[str, Any], **known: Any) -> "ResultRow":
        """A row from the metrics of an evaluation (keys of the devkit's `metrics_summary.json`).

        Args:
            known: Further fields.
        """
        errors = metrics.get("tp_errors", {})
        scores = {"mean_ap": metrics["mean_ap"], "nd_score": metrics["nd_score"]}
        scores |= {key: errors.get(key) for key in TP_ERRORS}
        known |= {key: _known(value) for key, value in scores.items()}
        return cls(name=name, **known)

    @classmethod
    def mean_of(cls, rows: Sequence["ResultRow"]) -> "ResultRow":
        """One row for several seeds of one experiment: means, and the sample standard deviations.

        Name, teacher and all that is not a score are the first row's.
        """
        if not rows:
            raise ValueError("the mean of no rows is not a row")
        fields = (*SCORES, "gain_mean_ap", "gain_nd_score")
        values = {key: [v for row in rows if (v := getattr(row, key)) is not None] for key in fields}
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
        """Column values by name; empty text is nothing to show."""
        hidden = {"spread", "is_teacher"}
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in hidden}
        return values | {"note": self.note or None}


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
