"""Confidence intervals of means over a few seeds, by Student's t."""

import math
import statistics
from collections.abc import Sequence

from scipy.special import stdtrit


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Confidence interval of the mean of independent draws; None for fewer than two."""
    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, (1 + confidence) / 2)) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def written_interval(interval: tuple[float, float] | None) -> str | None:
    """An interval of a share in percentage points, such as "[+0.5, +4.5]"."""
    return interval and "[{:+.1f}, {:+.1f}]".format(*(100 * bound for bound in interval)).replace("-", "−")
