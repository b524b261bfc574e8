"""The fast order is the plain one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualdistill.evaluate.sorting import sorted_rows


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 200),
    groups=st.sampled_from([1, 3, 1000, 2**45]),
    kind=st.sampled_from(["even", "ties", "outlier", "close", "equal", "huge"]),
)
def test_rows_come_as_lexsort_has_them(seed: int, count: int, groups: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    value = random.random(count)
    if kind == "ties":
        value = np.round(value, 1)
    elif kind == "outlier" and count:  # all others share one step
        value[0] = 1e18
    elif kind == "close":
        value = 0.5 + np.round(value, 2) * 1e-16
    elif kind == "equal":
        value = np.full(count, 0.25)
    elif kind == "huge":
        value = (value - 0.5) * 1.7e308
    group = random.integers(groups, size=count)
    rows = sorted_rows(group, value, groups=groups)
    assert rows.tolist() == np.lexsort((value, group)).tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, 5e-324])
def test_what_no_step_can_hold_is_sorted_all_the_same(value: float) -> None:
    values, group = np.array([0.0, value, 0.0, value]), np.zeros(4, dtype=np.int64)
    assert sorted_rows(group, values, groups=1).tolist() == np.lexsort((values, group)).tolist()
