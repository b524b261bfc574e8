import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualdistill.visualize.curves import draw_curves, loss_names, series, smoothed
from dualdistill.visualize.palette import DARK, LIGHT


def run(losses, steps=50):
    return [
        {"step": step, "learning_rate": 0.1, **{name: f(step) for name, f in losses.items()}} for step in range(steps)
    ]


def test_a_step_told_twice_counts_as_told_last():
    steps, values = series([{"step": 1, "a": 5.0}, {"step": 2, "a": 4.0}, {"step": 1, "a": 3.0}, {"step": 3}], "a")
    assert steps.tolist() == [1, 2]
    assert values.tolist() == [3.0, 4.0]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.floats(0.1, 50))
def test_a_moving_average_stays_within_what_it_has_seen(values, half_life):
    result = smoothed(np.arange(len(values), dtype=float), np.array(values), half_life)
    for index, value in enumerate(result):
        assert min(values[: index + 1]) - 1e-9 <= value <= max(values[: index + 1]) + 1e-9


def test_a_constant_stays_itself_from_the_first_step_on():
    np.testing.assert_allclose(smoothed(np.array([0.0, 1.0, 7.0, 90.0]), np.full(4, 3.0), 10.0), 3.0)


def test_half_is_forgotten_in_a_half_life():
    steps, values = np.array([0.0, 10.0]), np.array([0.0, 3.0])
    assert smoothed(steps, values, 10.0)[1] == pytest.approx(3.0 / 1.5)


def test_values_that_are_not_finite_are_passed_over():
    result = smoothed(np.arange(3.0), np.array([1.0, math.nan, 1.0]), 1.0)
    np.testing.assert_allclose(result, 1.0)


def test_each_loss_has_a_plot_and_each_run_that_knows_it_a_line():
    alone = run({"loss": lambda s: 1.0 + s, "loss/heatmap": lambda s: 1.0})
    taught = run({"loss": lambda s: 2.0, "loss/heatmap": lambda s: 2.0, "loss/crd": lambda s: 3.0})
    assert loss_names({"alone": alone, "taught": taught}) == ["loss", "loss/heatmap", "loss/crd"]
    figure = draw_curves({"alone": alone, "taught": taught}, theme=DARK)
    plots = {axes.get_title(loc="left"): len(axes.lines) // 2 for axes in figure.axes if axes.lines}
    assert plots == {"total": 2, "heatmap": 2, "crd": 1}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["alone", "taught"]


def test_a_run_keeps_its_colour_in_all_plots_and_in_the_legend():
    records = run({"loss/a": lambda s: 1.0, "loss/b": lambda s: 2.0})
    figure = draw_curves({"one": records, "two": records})
    for axes in figure.axes:
        assert [line.get_color() for line in axes.lines[1::2]] == [LIGHT.series[0], LIGHT.series[1]]
    assert [line.get_color() for line in figure.legends[0].get_lines()] == [LIGHT.series[0], LIGHT.series[1]]


def test_wide_ranges_are_logarithmic_and_narrow_ones_are_not():
    records = run(
        {
            "loss/wide": lambda s: 1000 * 0.8**s,
            "loss/narrow": lambda s: 1 + s / 50,
            "loss/nan": lambda s: math.nan,
        }
    )
    figure = draw_curves({"run": records})
    scales = {axes.get_title(loc="left"): axes.get_yscale() for axes in figure.axes}
    assert scales == {"wide": "log", "narrow": "linear", "nan": "linear"}
