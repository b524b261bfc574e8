"""Differences are paired, intervals are Student's, corrections are Holm's."""

import pytest

from studies.stats import difference, holm, scores, verdict


def runs(**by_row: list[float]) -> dict[str, dict[str, float]]:
    """Runs of 1,200 samples by row, seeds 1, 2, ...; mAP in points."""
    return {
        f"{row}/1200/{seed}": {"mean_ap": value / 100}
        for row, values in by_row.items()
        for seed, value in enumerate(values, start=1)
    }


def test_a_difference_pairs_runs_of_one_seed():
    found = difference(runs(a=[3.0, 5.0, 9.0], b=[1.0, 2.0]), "a", "b", 1200)
    assert dict(found.by_seed) == pytest.approx({1: 2.0, 2: 3.0})
    assert found.mean == pytest.approx(2.5)


def test_the_interval_is_students():
    """Mean 2, standard deviation 1, three values: 2 ± 4.303 / sqrt(3)."""
    found = difference(runs(a=[1.0, 2.0, 3.0], b=[0.0, 0.0, 0.0]), "a", "b", 1200)
    assert found.interval == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_have_no_interval_and_decide_nothing(seeds):
    found = difference(runs(a=[2.0, 2.5][:seeds], b=[1.0, 1.0][:seeds]), "a", "b", 1200)
    assert (found.interval, found.p) == (None, None)
    assert verdict(found, None) == "too few seeds"


def test_rows_of_other_budgets_do_not_count():
    assert scores(runs(a=[1.0]), "a", 6000, "mean_ap") == {}
    assert difference(runs(a=[1.0]), "a", "b", 1200) is None


def test_holm_multiplies_the_least_by_the_number_of_tests_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("sign", "p", "expected"), [(1, 0.01, "holds"), (-1, 0.01, "does not hold"), (1, 0.2, "undecided")]
)
def test_a_verdict_needs_a_small_p_and_takes_the_sign_of_the_mean(sign, p, expected):
    found = difference(runs(a=[sign * 1.0, sign * 2.0], b=[0.0, 0.0]), "a", "b", 1200)
    assert verdict(found, p) == expected
