"""Pictures of a study: what was gained where, with every seed to be seen."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dualdistill.visualize.palette import LIGHT, Theme

Values = Mapping[str, Sequence[float]]
"""One value a seed, by category."""


def draw_gains(panels: Mapping[str, Values], unit: str, *, theme: Theme = LIGHT) -> Figure:
    """A panel a method: mean difference to the reference as a bar, each seed as a dot; all on one scale.

    Args:
        panels: By method: differences by category, in the same order everywhere.
        unit: Of the differences.
    """
    categories = list(dict.fromkeys(name for values in panels.values() for name in values))
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = _figure(2.9 * columns + 1.2, (0.27 * len(categories) + 1.0) * rows, theme)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for place, (ax, (name, values)) in enumerate(zip(axes, panels.items(), strict=False)):
        _dress(ax, name, categories, theme)
        ax.axvline(0, color=theme.muted, linewidth=0.8)
        for y, category in enumerate(categories):
            seeds = list(values.get(category, ()))
            if seeds:
                mean = statistics.fmean(seeds)
                ax.barh(y, mean, color=theme.series[3 if mean >= 0 else 1], height=0.62, alpha=0.75)
                ax.plot(seeds, [y] * len(seeds), ".", color=theme.ink, markersize=4)
        if place + columns >= len(panels):  # nothing below
            ax.xaxis.set_tick_params(labelbottom=True)
            ax.set_xlabel(unit, color=theme.muted, fontsize=8.5)
    return figure


def draw_values(series: Mapping[str, Values], unit: str, *, theme: Theme = LIGHT) -> Figure:
    """A line a category, a colour a series: the mean as a diamond, each seed as a dot."""
    categories = list(dict.fromkeys(name for values in series.values() for name in values))
    figure = _figure(7.6, 0.32 * len(categories) + 1.1, theme)
    ax = figure.subplots()
    _dress(ax, "", categories, theme)
    for colour, (name, values) in zip(theme.series[2:] + theme.series[:2], series.items(), strict=False):
        label: str | None = name
        for y, category in enumerate(categories):
            seeds = list(values.get(category, ()))
            if seeds:
                ax.plot(seeds, [y] * len(seeds), ".", color=colour, markersize=4, alpha=0.6)
                ax.plot(statistics.fmean(seeds), y, "D", color=colour, markersize=7, label=label)
                label = None
    ax.set_xlabel(unit, color=theme.muted, fontsize=9)
    if len(series) > 1:
        figure.legend(frameon=False, fontsize=9, labelcolor=theme.ink, loc="outside upper left", ncols=len(series))
    return figure


def write_picture(figure: Figure, path: Path) -> None:
    """A PNG without dates or versions: equal numbers give equal bytes."""
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _figure(width: float, height: float, theme: Theme) -> Figure:
    return Figure(figsize=(width, height), facecolor=theme.paper, layout="constrained")


def _dress(ax: Axes, title: str, categories: Sequence[str], theme: Theme) -> None:
    ax.set_title(title, color=theme.ink, fontsize=10, loc="left", pad=5)
    ax.set_facecolor(theme.paper)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set(color=theme.muted, linewidth=0.7)
    ax.tick_params(colors=theme.muted, labelsize=8.5, length=0)
    ax.set_yticks(range(len(categories)), [name.replace("_", " ") for name in categories])
    ax.set_ylim(len(categories) - 0.4, -0.6)
    ax.grid(axis="x", color=theme.rule, linewidth=0.6)
    ax.set_axisbelow(True)
