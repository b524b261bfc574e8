import json
import math

import pytest
import torch

from dualdistill.report.timing import Row, Variant, measure, relative_difference, timing_tables


def test_the_first_variant_is_the_reference_and_all_are_measured():
    calls = []

    def run(name, value):
        calls.append(name)
        return torch.tensor([value])

    rows = measure(
        "sum",
        [
            Variant(name="slow", run=lambda: run("slow", 2.0), repeats=1),
            Variant(name="fast", run=lambda: run("fast", 2.5)),
        ],
        repeats=3,
        floor_ms=0.5,
        floor="traffic",
    )
    assert [row.name for row in rows] == ["slow", "fast", "floor: traffic"]
    assert rows[0].ratio == 1.0
    assert rows[0].difference is None
    assert rows[1].difference == pytest.approx(0.25)
    assert calls.count("fast") - calls.count("slow") == 2  # fewer timed repeats for the slow one


def test_memory_is_what_a_run_held_at_most():
    (row,) = measure("fill", [Variant(name="64 MiB", run=lambda: torch.ones(16 * 2**20).sum())], repeats=1)
    if row.peak_mib is None:
        pytest.skip("no /proc here")
    assert 60 < row.peak_mib < 80


@pytest.mark.parametrize(
    ("reference", "other", "difference"),
    [
        ({"a": [1.0, -4.0]}, {"a": [1.0, -5.0]}, 0.25),
        ({"a": 1.0}, {"b": 1.0}, math.inf),
        ((1.0, 2.0), (1.0,), math.inf),
        ([math.nan, 1.0], [math.nan, 1.0], 0.0),
        ([math.nan, 1.0], [0.0, 1.0], math.inf),
        (torch.zeros(3), torch.zeros(3), 0.0),
        (None, torch.zeros(3), None),
    ],
)
def test_difference_is_relative_to_the_largest_value_and_infinite_where_results_do_not_match(
    reference, other, difference
):
    assert relative_difference(reference, other) == difference


def test_rows_survive_json_and_a_result_of_another_shape_does_too():
    row = Row(setting="sum", name="wrong", milliseconds=1.0, difference=math.inf, facts={"tflops": 2.0})
    text = json.dumps(row.to_json(), allow_nan=False)
    assert Row.from_json(json.loads(text)) == row
    plain = Row(setting="sum", name="loop", milliseconds=1.0)
    assert "facts" not in plain.to_json()
    assert Row.from_json(plain.to_json()) == plain


def test_rows_are_shown_in_one_table_a_setting():
    rows = [
        Row(setting="small", name="loop", milliseconds=1.0),
        Row(setting="large", name="loop", milliseconds=99.0),
        Row(setting="large", name="vector", milliseconds=9.0, ratio=11.0, difference=1.23e-7),
    ]
    small, large = timing_tables(rows)
    assert (small.title, large.title) == ("small", "large")
    assert "1e-07" in large.to_markdown()
