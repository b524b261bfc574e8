"""One record for a table of results, and its five forms: terminal, Markdown, HTML, LaTeX and JSON."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from dualdistill.report.templates import render

Value = float | int | str | None

_DIRECTIONS = {"up": ("↑", "higher is better"), "down": ("↓", "lower is better")}
_GAP = 2
"""Blanks after a column on a terminal: one of padding, one from the box style."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column: its key, its heading and the format of its numbers."""

    key: str
    """Name in the JSON form."""
    title: str
    digits: int | None = None
    """Decimals; None means text, or whole numbers with thousands grouped."""
    scale: float = 1.0
    """Factor between the stored value and the written one; the JSON form keeps the stored value."""
    signed: bool = False
    """Whether a plus sign is written."""
    better: Literal["up", "down"] | None = None
    """Which direction is better, if any: shown as an arrow, and the best value of the column is set in bold."""
    side: bool = False
    """Whether the column comes after the others where a table is split to fit a narrow terminal."""

    @property
    def arrow(self) -> str:
        return _DIRECTIONS[self.better][0] if self.better else ""

    @property
    def meaning(self) -> str:
        """The arrow in words."""
        return _DIRECTIONS[self.better][1] if self.better else ""

    @property
    def heading(self) -> str:
        return f"{self.title} {self.arrow}".rstrip()


class Cell(NamedTuple):
    """A cell as it is read in every form but JSON."""

    text: str
    best: bool
    number: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Columns, rows of values by column key, and the facts that the forms need."""

    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Value], ...]
    spreads: tuple[Mapping[str, float], ...] = ()
    """Standard deviations by column, one mapping a row; empty where nothing was repeated."""
    ranked: tuple[bool, ...] = ()
    """Which rows compete for the best value of a column; empty: all."""
    title: str = ""
    summary: bool = False
    """Whether the last row sums up the others, and is set apart."""

    def cell(self, row: int, column: Column) -> str:
        """The written value of a cell; a dash where there is none."""
        value = self.rows[row].get(column.key)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "–"
        text = _written(value, column)
        spread = self.spreads[row].get(column.key) if self.spreads else None
        return text if spread is None else f"{text} ± {spread * column.scale:.{column.digits or 0}f}"

    def numeric(self, column: Column) -> bool:
        """Whether a column holds numbers, which are aligned to the right."""
        return any(isinstance(row.get(column.key), int | float) for row in self.rows)

    def best(self, column: Column) -> set[int]:
        """Rows with the best written value of a column; empty where fewer than two compete, or all are equal."""
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

    def cells(self) -> list[list[Cell]]:
        """Every cell, row by row."""
        facts = [(column, self.best(column), self.numeric(column)) for column in self.columns]
        return [[Cell(self.cell(i, c), i in best, number) for c, best, number in facts] for i in range(len(self.rows))]

    def to_rich(self, width: int | None = None) -> Group:
        """The table for a terminal of `width` characters, with every column and no number cut.

        Text is folded. Where the columns do not fit side by side, several tables below each other have the first
        column in common.
        """
        grid = [[Cell(column.title, False, False) for column in self.columns], *self.cells()]
        widths = [max(cell_len(line[at].text) for line in grid) + _GAP for at in range(len(self.columns))]
        first, *others = range(len(self.columns))
        if width is None or sum(widths) <= width or not any(map(self.numeric, self.columns)):
            return Group(self._rich([first, *others], None))
        head = min(widths[first], max(width * 2 // 5, width - sum(widths[at] for at in others)))
        blocks: list[list[int]] = [[]]
        for at in sorted(others, key=lambda at: self.columns[at].side):
            if blocks[-1] and head + sum(widths[i] for i in (*blocks[-1], at)) > width:
                blocks.append([])
            blocks[-1].append(at)
        tables = [self._rich([first, *block], head - _GAP) for block in blocks]
        return Group(*(part for table in tables for part in (table, Text())))

    def _rich(self, places: Sequence[int], first_width: int | None) -> RichTable:
        table = RichTable(
            title=self.title or None,
            title_justify="left",
            box=SIMPLE_HEAD,
            show_edge=False,
            padding=(0, _GAP - 1, 0, 0),
        )
        for at in places:
            number = self.numeric(self.columns[at])
            table.add_column(
                Text(self.columns[at].title),
                justify="right" if number else "left",
                no_wrap=number,
                width=first_width if at == places[0] else None,
                overflow="fold",
            )
        for index, line in enumerate(self.cells()):
            texts = [Text(line[at].text, style="bold" if line[at].best else "") for at in places]
            table.add_row(*texts, end_section=self.summary and index == len(self.rows) - 2)
        return table

    def to_markdown(self) -> str:
        """A GitHub table, aligned in the source too."""

        def escaped(text: str) -> str:
            return text.replace("|", "\\|").replace("\n", " ")

        lines = [[escaped(column.heading) for column in self.columns]]
        lines += [[f"**{escaped(c.text)}**" if c.best else escaped(c.text) for c in line] for line in self.cells()]
        right = [self.numeric(column) for column in self.columns]
        widths = [max(3, *(len(line[at]) for line in lines)) for at in range(len(self.columns))]
        rule = ["-" * (width - 1) + ":" if flush else "-" * width for width, flush in zip(widths, right, strict=True)]

        def joined(line: Sequence[str]) -> str:
            padded = (f"{t:>{w}}" if flush else f"{t:<{w}}" for t, w, flush in zip(line, widths, right, strict=True))
            return f"| {' | '.join(padded)} |\n"

        return "".join(map(joined, [lines[0], rule, *lines[1:]]))

    def to_html(self) -> str:
        """A `<table>` without styles: numbers have class "number", best ones are in `<strong>`."""
        columns = [(column, self.numeric(column)) for column in self.columns]
        return render("table.html.jinja", columns=columns, rows=self.cells(), summary=self.summary)

    def to_latex(self) -> str:
        """A `tabular` for the booktabs package."""

        def line(cells: Sequence[str]) -> str:
            return "  " + " & ".join(cells) + r" \\"

        alignment = "".join("r" if self.numeric(column) else "l" for column in self.columns)
        body = [line([rf"\textbf{{{_latex(c.text)}}}" if c.best else _latex(c.text) for c in r]) for r in self.cells()]
        if self.summary:
            body.insert(-1, r"  \midrule")
        return "\n".join([
            rf"\begin{{tabular}}{{{alignment}}}", r"  \toprule", line([_latex(c.heading) for c in self.columns]),
            r"  \midrule", *body, r"  \bottomrule", r"\end{tabular}", "",
        ])  # fmt: skip

    def to_json(self) -> str:
        """A list with one object a row: unrounded values; null for what is not known."""
        rows = []
        for index, row in enumerate(self.rows):
            record: dict[str, Any] = {column.key: _finite(row.get(column.key)) for column in self.columns}
            if self.spreads and self.spreads[index]:
                record["standard_deviation"] = dict(self.spreads[index])
            rows.append(record)
        return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _written(value: float | int | str, column: Column) -> str:
    if isinstance(value, str):
        return value
    if column.digits is None:
        return f"{value:,}"
    text = f"{value * column.scale:{'+' if column.signed else ''}.{column.digits}f}"
    if not float(text):  # no "-0.0", and no sign on zero
        text = text.lstrip("+-")
    return text.replace("-", "−")


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value


_LATEX: dict[str, str] = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "↑": r"$\uparrow$",
    "↓": r"$\downarrow$", "Δ": r"$\Delta$", "±": r"$\pm$", "−": "$-$", "–": "--", "\n": " ",
}  # fmt: skip


def _latex(text: str) -> str:
    return re.sub("|".join(map(re.escape, _LATEX)), lambda match: _LATEX[match.group()], text)
