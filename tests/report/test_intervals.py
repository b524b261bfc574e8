"""Student's t against the printed tables, and intervals that hold what they promise."""

import numpy as np
import pytest

from dualdistill.report.scores import mean_interval


@pytest.mark.parametrize(
    ("values", "confidence", "t"),
    [(2, 0.95, 12.706), (3, 0.95, 4.303), (5, 0.95, 2.776), (11, 0.95, 2.228), (5, 0.99, 4.604), (5, 0.9, 2.132)],
)
def test_the_width_follows_the_printed_tables_of_t(values, confidence, t):
    draws = list(np.random.default_rng(values).normal(size=values))
    low, high = mean_interval(draws, confidence)
    assert (high - low) / 2 == pytest.approx(t * np.std(draws, ddof=1) / np.sqrt(values), rel=2e-4)


def test_an_interval_lies_around_the_mean_and_needs_two_values():
    assert mean_interval([0.01, 0.03]) == pytest.approx((0.02 - 12.7062 * 0.01, 0.02 + 12.7062 * 0.01), abs=1e-5)
    assert mean_interval([0.02, 0.02, 0.02]) == pytest.approx((0.02, 0.02))
    assert mean_interval([0.02]) is None


def test_ninety_five_of_a_hundred_intervals_hold_the_true_mean():
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(4000, 3))
    held = [low <= 3.0 <= high for low, high in (mean_interval(list(map(float, row))) for row in draws)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)
