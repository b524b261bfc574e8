"""Results as a table: numbers in once, out to the terminal, Markdown, HTML, LaTeX and JSON."""

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from dualdistill.report.results import TP_ERRORS, ResultRow

Value = float | int | str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column: what it is called and how its numbers are written."""

    key: str
    """Name in the JSON form."""
    title: str
    digits: int | None = None
    """Decimals; None means text, or whole numbers with thousands grouped."""
    scale: float = 1.0
    """What a value is multiplied with to be written; the JSON form keeps the plain value."""
    signed: bool = False
    """Whether a plus sign is written."""
    better: Literal["up", "down"] | None = None
    """Which direction is better, if any: shown as an arrow, and the best value of the column stands out."""

    side: bool = False
    """Whether a narrow terminal may do without it."""

    @property
    def heading(self) -> str:
        return self.title + {"up": " ↑", "down": " ↓", None: ""}[self.better]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Columns, rows of values, and what the renderers need to know about them."""

    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Value], ...]
    spreads: tuple[Mapping[str, float], ...] = ()
    """Standard deviations by column, one mapping a row; empty where nothing was repeated."""
    ranked: tuple[bool, ...] = ()
    """Which rows compete for the best value of a column; empty: all."""
    title: str = ""
    summary: bool = False
    """Whether the last row sums up the others, and is set apart."""

    def __post_init__(self) -> None:
        for entries in (self.spreads, self.ranked):
            if entries and len(entries) != len(self.rows):
                raise ValueError(f"{len(self.rows)} rows need as many spreads and ranks, got {len(entries)}")

    def cell(self, row: int, column: Column) -> str:
        """A value as it is read, the same in every form but JSON; a dash where there is none."""
        value = self.rows[row].get(column.key)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "–"
        text = _written(value, column)
        spread = self.spreads[row].get(column.key) if self.spreads else None
        return text if spread is None else f"{text} ± {spread * column.scale:.{column.digits or 0}f}"

    def numeric(self, column: Column) -> bool:
        """Whether a column holds numbers, and so is set flush right."""
        return any(isinstance(row.get(column.key), int | float) for row in self.rows)

    def best(self, column: Column) -> set[int]:
        """Rows with the best written value of a column, if there is something to compare."""
        if column.better is None:
            return set()
        ranked = self.ranked or (True,) * len(self.rows)
        written = {
            index: float(_written(value, column).replace("−", "-").replace(",", ""))
            for index, row in enumerate(self.rows)
            if ranked[index] and isinstance(value := row.get(column.key), int | float) and not math.isnan(value)
        }
        if len(written) < 2:
            return set()
        winner = (max if column.better == "up" else min)(written.values())
        winners = {index for index, value in written.items() if value == winner}
        return winners if len(winners) < len(written) else set()

    def to_rich(self, width: int | None = None) -> RichTable:
        """For a terminal of `width` characters: side columns that do not fit are left out, the last first."""
        columns = list(self.columns)
        while True:
            table = self._rich(columns)
            side = [column for column in columns if column.side]
            if not side or width is None or Console(width=10_000).measure(table).maximum <= width:
                return table
            columns.remove(side[-1])

    def _rich(self, columns: Sequence[Column]) -> RichTable:
        table = RichTable(
            title=self.title or None,
            title_justify="left",
            box=SIMPLE_HEAD,
            show_edge=False,
            padding=(0, 1, 0, 0),
        )
        for column in columns:
            right = self.numeric(column)
            table.add_column(Text(column.title), justify="right" if right else "left", no_wrap=right)
        for index in range(len(self.rows)):
            texts = [
                Text(self.cell(index, column), style="bold" if index in self.best(column) else "") for column in columns
            ]
            table.add_row(*texts, end_section=self.summary and index == len(self.rows) - 2)
        return table

    def to_markdown(self) -> str:
        """A GitHub table, aligned in the source too."""

        def cells(index: int) -> list[str]:
            texts = []
            for column in self.columns:
                text = self.cell(index, column).replace("|", "\\|").replace("\n", " ")
                texts.append(f"**{text}**" if index in self.best(column) else text)
            return texts

        lines = [
            [column.heading.replace("|", "\\|") for column in self.columns],
            *map(cells, range(len(self.rows))),
        ]
        right = [self.numeric(column) for column in self.columns]
        widths = [max(3, *(len(line[at]) for line in lines)) for at in range(len(self.columns))]

        def joined(line: Sequence[str]) -> str:
            padded = [
                text.rjust(width) if flush else text.ljust(width)
                for text, width, flush in zip(line, widths, right, strict=True)
            ]
            return f"| {' | '.join(padded)} |"

        rule = ["-" * (width - 1) + ":" if flush else "-" * width for width, flush in zip(widths, right, strict=True)]
        return "\n".join([joined(lines[0]), joined(rule), *map(joined, lines[1:])]) + "\n"

    def to_html(self) -> str:
        """A `<table>` without styles: numbers carry class "number", best ones sit in `<strong>`."""

        number = ' class="number"'

        def cell(index: int, column: Column) -> str:
            text = html.escape(self.cell(index, column))
            text = f"<strong>{text}</strong>" if index in self.best(column) else text
            if column is self.columns[0]:
                return f'<th scope="row">{text}</th>'
            return f"<td{number if self.numeric(column) else ''}>{text}</td>"

        heads = "".join(
            f'<th scope="col"{number if self.numeric(column) else ""}>{_html_heading(column)}</th>'
            for column in self.columns
        )
        lines = [[cell(index, column) for column in self.columns] for index in range(len(self.rows))]
        rows = [f"<tr>{''.join(line)}</tr>" for line in lines]
        if self.summary:
            rows[-1] = rows[-1].replace("<tr>", '<tr class="summary">', 1)
        body = "\n".join(rows)
        return f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"

    def to_latex(self) -> str:
        """A `tabular` for the booktabs package."""

        def cell(index: int, column: Column) -> str:
            text = _latex(self.cell(index, column))
            return rf"\textbf{{{text}}}" if index in self.best(column) else text

        def line(cells: Sequence[str]) -> str:
            return "  " + " & ".join(cells) + r" \\"

        alignment = "".join("r" if self.numeric(column) else "l" for column in self.columns)
        heads = [_latex(column.heading) for column in self.columns]
        body = [line([cell(index, column) for column in self.columns]) for index in range(len(self.rows))]
        if self.summary:
            body.insert(-1, r"  \midrule")
        return "\n".join([
            rf"\begin{{tabular}}{{{alignment}}}", r"  \toprule", line(heads), r"  \midrule", *body,
            r"  \bottomrule", r"\end{tabular}", "",
        ])  # fmt: skip

    def to_json(self) -> str:
        """A list with one object a row: plain, unrounded values; null for what is not known."""
        rows = []
        for index, row in enumerate(self.rows):
            record: dict[str, Any] = {column.key: _plain(row.get(column.key)) for column in self.columns}
            if self.spreads and self.spreads[index]:
                record["standard_deviation"] = dict(self.spreads[index])
            rows.append(record)
        return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def results_table(rows: Sequence[ResultRow], title: str = "") -> Table:
    """The main table: a row a model; columns nobody has a value for are left out.

    mAP, NDS and gains in percent and percentage points; errors in their own units (metres, 1 - IoU, radians,
    m/s, 1 - accuracy). Teachers do not compete for the best value.
    """
    if not rows:
        raise ValueError("a results table needs at least one row")
    percent: dict[str, Any] = {"digits": 1, "scale": 100.0}
    columns = [
        Column(key="name", title="Model"),
        Column(key="teacher", title="Teacher", side=True),
        Column(key="mean_ap", title="mAP", better="up", **percent),
        Column(key="nd_score", title="NDS", better="up", **percent),
        *(Column(key=key, title=title_, digits=3, better="down") for key, title_ in TP_ERRORS.items()),
        Column(key="gain_mean_ap", title="Δ mAP", signed=True, **percent),
        Column(key="gain_nd_score", title="Δ NDS", signed=True, **percent),
        Column(key="published_mean_ap", title="mAP publ.", **percent, side=True),
        Column(key="published_nd_score", title="NDS publ.", **percent, side=True),
        Column(key="steps", title="Steps", side=True),
        Column(key="parameters", title="Params (M)", digits=1, scale=1e-6, side=True),
        Column(key="seeds", title="Seeds", side=True),
        Column(key="note", title="Note", side=True),
    ]
    values = [row.values() for row in rows]
    asked = [column for column in columns if any(value.get(column.key) is not None for value in values)]
    return Table(
        columns=tuple(asked),
        rows=tuple(values),
        spreads=tuple(row.spread for row in rows),
        ranked=tuple(not row.is_teacher for row in rows),
        title=title,
    )


def class_table(average_precisions: Mapping[str, Mapping[str, float]], title: str = "") -> Table:
    """AP (percent) by class: a row a class in the order of the first model, a column a model, the mean last.

    Args:
        average_precisions: AP in [0, 1] of each class (averaged over the distance thresholds), by model.
    """
    models = list(average_precisions)
    classes = list(dict.fromkeys(name for values in average_precisions.values() for name in values))
    columns = [
        Column(key="class", title="Class"),
        *(Column(key=model, title=model, digits=1, scale=100.0) for model in models),
    ]
    rows: list[dict[str, Value]] = [
        {"class": name.replace("_", " "), **{model: average_precisions[model].get(name) for model in models}}
        for name in classes
    ]
    means = {model: _mean(list(average_precisions[model].values())) for model in models}
    return Table(columns=tuple(columns), rows=(*rows, {"class": "mean", **means}), title=title, summary=True)


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None


def _written(value: float | int | str, column: Column) -> str:
    if isinstance(value, str):
        return value
    if column.digits is None:
        return f"{value:,}"
    text = f"{value * column.scale:{'+' if column.signed else ''}.{column.digits}f}"
    if not float(text):  # no "-0.0", and no sign on nothing
        text = text.lstrip("+-")
    return text.replace("-", "−")


def _plain(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _html_heading(column: Column) -> str:
    """The arrow is spoken as words."""
    if column.better is None:
        return html.escape(column.title)
    arrow, words = ("↑", "higher is better") if column.better == "up" else ("↓", "lower is better")
    return f'{html.escape(column.title)}&nbsp;<abbr title="{words}">{arrow}</abbr>'


_LATEX: dict[str, str] = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "↑": r"$\uparrow$",
    "↓": r"$\downarrow$", "Δ": r"$\Delta$", "±": r"$\pm$", "−": "$-$", "–": "--", "\n": " ",
}  # fmt: skip


def _latex(text: str) -> str:
    return re.sub("|".join(map(re.escape, _LATEX)), lambda match: _LATEX[match.group()], text)
