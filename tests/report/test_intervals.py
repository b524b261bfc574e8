"""Student's t against the printed tables, and intervals that hold what they promise."""

import numpy as np
import pytest

from dualdistill.report.intervals import mean_interval, t_quantile


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_t_is_that_of_the_printed_tables(degrees, expected):
    assert t_quantile(degrees) == pytest.approx(expected, abs=5e-4)


def test_other_confidences_are_those_of_the_printed_tables_too():
    assert t_quantile(4, 0.99) == pytest.approx(4.604, abs=5e-4)
    assert t_quantile(4, 0.9) == pytest.approx(2.132, abs=5e-4)


def test_an_interval_lies_around_the_mean_and_needs_two_values():
    assert mean_interval([0.01, 0.03]) == pytest.approx((0.02 - 12.7062 * 0.01, 0.02 + 12.7062 * 0.01), abs=1e-5)
    assert mean_interval([0.02, 0.02, 0.02]) == pytest.approx((0.02, 0.02))
    assert mean_interval([0.02]) is None


def test_ninety_five_of_a_hundred_intervals_hold_the_true_mean():
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(4000, 3))
    held = [low <= 3.0 <= high for low, high in (mean_interval(list(map(float, row))) for row in draws)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)


def test_no_degree_of_freedom_is_no_interval():
    with pytest.raises(ValueError, match="degree of freedom"):
        t_quantile(0)
