"""Tables of a study: methods against their reference, true-positive errors, teachers, every run."""

import statistics
from collections.abc import Sequence
from typing import Any

from dualdistill.report.scores import TP_ERRORS
from dualdistill.report.table import Column, Table, Value
from dualdistill.science.record import Result
from dualdistill.science.summary import METRICS, Interval, Line

_PERCENT: dict[str, Any] = {"digits": 1, "scale": 100.0}


def difference_table(lines: Sequence[Line], *, brief: bool = False) -> Table:
    """A row a method: means ± sd, differences to the reference with intervals, the published ones beside them."""
    rows: list[dict[str, Value]] = []
    spreads: list[dict[str, float]] = []
    for line in lines:
        row: dict[str, Value] = {"name": line.row.name, "seeds": len(line.results)}
        spread: dict[str, float] = {}
        for metric in METRICS:
            row[metric] = line.mean(metric)
            sd = line.spread(metric)
            if sd is not None:
                spread[metric] = sd
            difference = line.difference(metric)
            if difference is not None:
                row[f"gain_{metric}"] = difference.mean
                row[f"seeds_{metric}"] = written(difference.seeds)
                row[f"scenes_{metric}"] = written(difference.scenes)
                row[f"pairs_{metric}"] = len(difference.by_seed)
            row[f"published_gain_{metric}"] = line.published_difference(metric)
            row[f"verdict_{metric}"] = line.verdict(metric) or None
        if line.published is not None:
            row["published"] = f"{line.published.mean_ap:.1f} / {line.published.nds:.1f}"
        rows.append(row)
        spreads.append(spread)
    columns = [Column(key="name", title="Method")]
    columns += [Column(key=metric, title=title, better="up", **_PERCENT) for metric, title in METRICS.items()]
    for metric, title in METRICS.items():
        columns += [
            Column(key=f"gain_{metric}", title=f"Δ {title}", signed=True, **_PERCENT),
            Column(key=f"seeds_{metric}", title="95 % seeds", side=True),
            *([] if brief else [Column(key=f"scenes_{metric}", title="95 % scenes", side=True)]),
            Column(key=f"published_gain_{metric}", title=f"Δ {title} publ.", signed=True, side=True, **_PERCENT),
            *([] if brief else [Column(key=f"verdict_{metric}", title="sign", side=True)]),
        ]
    if not brief:
        columns += [Column(key="published", title="publ. mAP / NDS", side=True), Column(key="seeds", title="Seeds")]
    kept = tuple(column for column in columns if any(row.get(column.key) is not None for row in rows))
    return Table(columns=kept, rows=tuple(rows), spreads=tuple(spreads))


def error_table(lines: Sequence[Line]) -> Table:
    rows = []
    for line in lines:
        row: dict[str, Value] = {"name": line.row.name}
        for key in TP_ERRORS:
            known = line.values(lambda result, key=key: result.scores.tp_errors.get(key))  # type: ignore[misc]
            row[key] = statistics.fmean(known) if known else None
        rows.append(row)
    columns = [Column(key=key, title=title, digits=3, better="down") for key, title in TP_ERRORS.items()]
    return Table(columns=(Column(key="name", title="Method"), *columns), rows=tuple(rows))


def run_table(results: Sequence[Result]) -> Table:
    """Every run with its cost."""
    rows: list[dict[str, Value]] = [
        {
            "row": result.row,
            "seed": result.seed,
            "mean_ap": result.scores.mean_ap,
            "nd_score": result.scores.nd_score,
            "depth": result.depth.mean_absolute if result.depth else None,
            "steps": result.steps,
            "cpu": result.cpu_seconds / 60,
            "fingerprint": result.fingerprint[:10],
            "commit": (result.commit or "")[:10] or None,
        }
        for result in results
    ]
    columns = (
        Column(key="row", title="Run"),
        Column(key="seed", title="Seed"),
        Column(key="mean_ap", title="mAP", digits=2, scale=100.0),
        Column(key="nd_score", title="NDS", digits=2, scale=100.0),
        Column(key="depth", title="Depth error (m)", digits=2),
        Column(key="steps", title="Steps"),
        Column(key="cpu", title="CPU min", digits=1),
        Column(key="fingerprint", title="Settings"),
        Column(key="commit", title="Commit"),
    )
    return Table(columns=columns, rows=tuple(rows))


def written(interval: Interval | None) -> str | None:
    """Percentage points."""
    if interval is None:
        return None
    return f"[{', '.join(map(points, interval))}]"


def points(value: float) -> str:
    """Percentage points with their sign; nothing has none."""
    text = f"{100 * value:+.1f}"
    return text.replace("-", "−") if float(text) else "0.0"


def teacher_table(results: Sequence[Result]) -> Table:
    """Who taught."""
    rows: list[dict[str, Value]] = [
        {
            "name": result.recipe + (" (reads the annotations)" if result.role == "label_encoder" else ""),
            "mean_ap": result.scores.mean_ap,
            "nd_score": result.scores.nd_score,
            "steps": result.steps,
        }
        for result in results
        if result.role != "student"
    ]
    columns = (
        Column(key="name", title="Who"),
        Column(key="mean_ap", title="mAP", **_PERCENT),
        Column(key="nd_score", title="NDS", **_PERCENT),
        Column(key="steps", title="Steps"),
    )
    return Table(columns=columns, rows=tuple(rows))
