"""Tables as columns: cut out of the file where it lies one field a line, parsed where not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dualdistill.data.line_layout import Columns, Unfamiliar, cut_records
from dualdistill.data.tables import Kind, kinds_of, read_table
from dualdistill.data.tokens import as_texts


def read_table_columns(
    folder: Path,
    name: str,
    record: type[msgspec.Struct],
    keep: Callable[[Columns], Columns] = lambda columns: columns,
) -> Columns:
    """The fields of a table, in its order; no rows where an optional table is absent. See `tables.Kind`.

    Args:
        keep: Applied to some thousand rows after another, so that what is not wanted need not be held.

    Raises:
        UserError: for a table that is cut off, malformed, or holds a NaN, with the record it is in.
    """
    path = folder / f"{name}.json"
    try:
        parts = [keep(part) for part in cut_records(path, record)] if path.is_file() else None
    except Unfamiliar:
        parts = None
    if parts is None:
        return keep(_parsed(folder, name, record))
    # One column after another: what is put together need not lie there twice.
    return {field: np.concatenate([part.pop(field) for part in parts]) for field in list(parts[0])}


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
