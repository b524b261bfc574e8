"""Paired differences over seeds: means, intervals, and Holm's correction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

Metric = str
"""A key of a run: "mean_ap", "nd_score", or "mean_ap 0 to 15 m" and the like."""

FEWEST = 3
"""Fewest seeds that have an interval: with two, Student's t is as wide as the scale or narrow by chance."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One row minus another, paired by seed, in points (percent)."""

    by_seed: Mapping[int, float]
    """At least one."""
    interval: tuple[float, float] | None
    """95 % of the mean, by Student's t over seeds; None for fewer than `FEWEST`."""
    p: float | None
    """Two-sided, of a mean of zero, not corrected; None as the interval."""

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.by_seed.values())))


def scores(runs: Mapping[str, Any], row: str, budget: int, metric: Metric) -> dict[int, float]:
    """Points (percent) of a row by seed; runs without this metric are left out."""
    found = {}
    for key, run in runs.items():
        name, samples, seed = key.split("/")
        if (name, int(samples)) == (row, budget) and metric in run:
            found[int(seed)] = 100 * run[metric]
    return dict(sorted(found.items()))


def difference(
    runs: Mapping[str, Any], row: str, reference: str, budget: int, metric: Metric = "mean_ap"
) -> Difference | None:
    """None where no seed is shared."""
    here, there = (scores(runs, key, budget, metric) for key in (row, reference))
    by_seed = {seed: here[seed] - there[seed] for seed in here if seed in there}
    if not by_seed:
        return None
    values = list(by_seed.values())
    if len(values) < FEWEST or np.ptp(values) == 0:
        return Difference(by_seed=by_seed, interval=None, p=None)
    test = ttest_1samp(values, 0.0)
    low, high = test.confidence_interval(0.95)
    return Difference(by_seed=by_seed, interval=(float(low), float(high)), p=float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm, 1979), in the same order."""
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = least
    return corrected


def verdict(difference: Difference | None, corrected_p: float | None, *, level: float = 0.05) -> str:
    """Whether "the first row is better" holds."""
    if difference is None:
        return "not run"
    if corrected_p is None:
        return "too few seeds"
    if corrected_p >= level:
        return "undecided"
    return "holds" if difference.mean > 0 else "does not hold"
