"""How sure a mean over a few seeds is: Student's t."""

import math
import statistics
from collections.abc import Sequence


def t_quantile(degrees: int, confidence: float = 0.95) -> float:
    """The t that |T| stays below with probability `confidence`, T of Student's distribution."""
    if degrees < 1 or not 0 < confidence < 1:
        raise ValueError(f"need a degree of freedom and a probability, got {degrees} and {confidence}")
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < confidence else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Confidence interval of the mean of independent draws; None for fewer than two."""
    if len(values) < 2:
        return None
    half = t_quantile(len(values) - 1, confidence) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def _within(angle: float, degrees: int) -> float:
    """Probability of |T| < sqrt(degrees) tan(angle): the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    odd = degrees % 2
    total, term = 0.0, math.cos(angle) if odd else 1.0
    for power in range(1 + odd, degrees, 2):
        total += term
        term *= math.cos(angle) ** 2 * power / (power + 1)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
