"""Tables as columns: cut out of the file where it lies one field a line, parsed where not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Int

from dualdistill.data.line_layout import Choice, Columns, UnsupportedLayout, cut_records
from dualdistill.data.tables import Kind, kinds_of, read_table
from dualdistill.data.tokens import as_texts


def read_table_columns(folder: Path, name: str, record: type[msgspec.Struct], choice: Choice | None = None) -> Columns:
    """The fields of a table, in its order; no rows where an optional table is absent. See `tables.Kind`.

    Args:
        choice: Of records, asked for some thousand after another; None wants all. A column `row` tells where those
            that are wanted stand in the table.

    Raises:
        UserError: for a table that is cut off, malformed, or holds a NaN, with the record it is in.
    """
    path = folder / f"{name}.json"
    try:
        if path.is_file():
            return _joined(cut_records(path, record, choice))
    except UnsupportedLayout:
        pass
    columns = _parsed(folder, name, record)
    if choice is None:
        return columns
    rows = choice.of(columns)
    return in_order(columns, rows) | {"row": rows}


def in_order(columns: Columns, rows: Int[np.ndarray, "chosen"]) -> Columns:
    """The chosen rows; columns are taken out one by one, so that they need not be there twice."""
    return {name: columns.pop(name)[rows] for name in list(columns)}


def _joined(parts: Iterator[Columns]) -> Columns:
    columns: dict[str, _Column] = {}
    for part in parts:
        for field, values in part.items():
            columns.setdefault(field, _Column(values[:0])).append(values)
    return {field: column.values[: column.count] for field, column in columns.items()}


class _Column:
    """Values that come in parts, and lie in one piece of memory: what is freed in thousands of small ones, among others
    that are not, stays with the process."""

    def __init__(self, values: np.ndarray):
        self.values, self.count = values, len(values)

    def append(self, values: np.ndarray) -> None:
        stop = self.count + len(values)
        dtype = np.promote_types(self.values.dtype, values.dtype)  # texts may be longer than any before
        if stop > len(self.values) or dtype != self.values.dtype:
            room = len(self.values) if stop <= len(self.values) else 2 * stop
            larger = np.empty((room, *values.shape[1:]), dtype)
            larger[: self.count] = self.values[: self.count]
            self.values = larger
        self.values[self.count : stop] = values
        self.count = stop


def _parsed(folder: Path, name: str, record: type[msgspec.Struct]) -> Columns:
    records = read_table(folder, name, record)
    return {
        field: _column(kind, [getattr(each, field) for each in records]) for field, kind in kinds_of(record).items()
    }


def _column(kind: Kind, values: list[Any]) -> np.ndarray:
    if kind == "text":
        return as_texts(values)
    if kind == "first text":
        return as_texts(value[0] if value else "" for value in values)
    if kind == "integer":
        return np.array([value or 0 for value in values], dtype=np.int64)
    if kind == "truth":
        return np.array(values, dtype=bool)
    return np.array(values, dtype=np.float64).reshape(-1, 3 if kind == "vector" else 4)
