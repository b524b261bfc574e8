"""Loss curves: one small plot per quantity, with all runs on top of each other."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from dualdistill.visualize.palette import LIGHT, Theme

Record = Mapping[str, Any]
"""One line of metrics.jsonl: "step" and the quantities logged there."""

Series = Float[np.ndarray, "points"]

SMOOTHING = 0.02
"""Half-life of the moving average, as a fraction of the longest run."""


def series(records: Sequence[Record], name: str) -> tuple[Series, Series]:
    """Steps and values of one quantity; of a step logged twice (after a resume) the last value counts."""
    values = {record["step"]: record[name] for record in records if record.get(name) is not None}
    steps = sorted(values)
    return np.array(steps, dtype=float), np.array([values[step] for step in steps], dtype=float)


def smoothed(steps: Series, values: Series, half_life: float) -> Series:
    """Exponential moving average with the given half-life in steps, without bias towards the start.

    Uneven steps are weighted by their distance; values that are not finite are skipped.
    """
    finite = np.isfinite(values)
    weights = finite * 0.5 ** ((steps[-1:] - steps) / (half_life or 1.0))
    with np.errstate(invalid="ignore"):  # before the first finite value
        return np.cumsum(weights * np.where(finite, values, 0.0)) / np.cumsum(weights)


def loss_names(runs: Mapping[str, Sequence[Record]]) -> list[str]:
    """Names of the total and of every loss that at least one run has logged, in order of appearance."""
    keys = dict.fromkeys(key for records in runs.values() for record in records for key in record)
    return [key for key in keys if key == "loss"] + [key for key in keys if key.startswith("loss/")]


def draw_curves(runs: Mapping[str, Sequence[Record]], *, theme: Theme = LIGHT) -> Figure:
    """Small multiples: a plot for each loss, a line for each run with it, raw values faint in the background. `runs`:
    records of each run, by its name in the legend."""
    names = loss_names(runs)
    chosen = dict(zip(runs, cycle(theme.series), strict=False))
    columns = min(len(names), 4 if len(names) in (4, 7, 8) or len(names) > 9 else 3)
    rows = math.ceil(len(names) / columns)
    figure = Figure(
        figsize=(11.2, 2.35 * rows + 0.45),
        facecolor=theme.paper,
        layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, hspace=0.05, wspace=0.03),
    )
    last = max((record["step"] for records in runs.values() for record in records), default=1)
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in zip(all_axes, names, strict=False):
        _prepare(axes, name, last, theme)
        for run, records in runs.items():
            _draw_run(axes, *series(records, name), SMOOTHING * last, chosen[run])
        _scale(axes)
    for axes in all_axes[len(names) :]:
        axes.set_axis_off()
    handles = [Line2D([], [], color=chosen[run], linewidth=2, label=run) for run in runs]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=9.5,
        labelcolor=theme.ink, handlelength=1.4, borderaxespad=0.2,
    )  # fmt: skip
    return figure


def _prepare(axes: Axes, name: str, last: float, theme: Theme) -> None:
    title = "total" if name == "loss" else name.removeprefix("loss/").replace("_", " ")
    axes.set_title(title, color=theme.ink, fontsize=10, loc="left", pad=5)
    axes.set_facecolor(theme.paper)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color=theme.muted, linewidth=0.7)
    axes.tick_params(colors=theme.muted, labelsize=8, length=0, which="both")
    axes.grid(axis="y", color=theme.rule, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _draw_run(axes: Axes, steps: Series, values: Series, half_life: float, colour: str) -> None:
    if not len(steps):
        return
    axes.plot(steps, np.where(np.isfinite(values), values, math.nan), color=colour, linewidth=0.6, alpha=0.28)
    axes.plot(steps, smoothed(steps, values, half_life), color=colour, linewidth=1.7, solid_capstyle="round")


def _scale(axes: Axes) -> None:
    """Set a logarithmic axis where the smoothed lines span a factor of twenty, else one from zero if that fits.

    Outliers of the raw values may be outside.
    """
    smooth = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines[1::2]]
    known = np.concatenate([line[np.isfinite(line)] for line in smooth]) if smooth else np.array([])
    if not len(known):
        axes.set_yticks([])
        return
    low, high = float(known.min()), float(known.max())
    if low > 0 and high / low > 20:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        return
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    bottom = 0.0 if 0 <= low < 0.5 * high else low - margin
    axes.set_ylim(bottom, high + margin)
    axes.yaxis.set_major_locator(MaxNLocator(4))
