"""JSON tables to typed records and columns, some thousand records at a time."""

import json
import math
import re
from collections.abc import Callable, Iterator
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
from jaxtyping import Int

from dualdistill.data.tables import ANNOTATION_TABLES, Integer, Quaternion, Record, Token, Vector
from dualdistill.errors import UserError
from dualdistill.files import is_name, problem

PIECE = 1 << 18
"""Bytes decoded at once: their records fit into a processor's cache."""

_BOUNDARY = re.compile(rb"\}\s*,\s*\{")
_WINDOW = 1 << 14
"""Bytes at the end of a piece in which the end of a record is searched."""

Columns = dict[str, Any]
"""Columns of equal length by name: numpy arrays, or Arrow's large strings for texts."""

_LENGTHS = {Vector: 3, Quaternion: 4}

AnyRecord = TypeVar("AnyRecord", bound=Record)


def read_records(folder: Path, record: type[AnyRecord]) -> Iterator[list[AnyRecord]]:
    """Records of one table in the order of the file, in parts; none where an optional table is absent.

    A piece of the file ends where `}`, `,` and `{` follow each other. If that was inside a text or a nested list, the
    piece is truncated JSON, and more is read before it is decoded again.

    Raises:
        UserError: for a table that is cut off, malformed, or holds a NaN, with the record it is in; for a token that
            cannot be part of a file name.
    """
    path = folder / f"{record.table()}.json"
    if record.table() in ANNOTATION_TABLES and not path.is_file():
        return
    decoder: msgspec.json.Decoder[list[AnyRecord]] = msgspec.json.Decoder(list[record])  # type: ignore[valid-type]
    count, held, more, wanted = 0, b"", b"[", PIECE
    try:
        with path.open("rb") as file:
            while more:
                more = file.read(wanted)
                held += more
                piece, rest = _split(held) if more else (held, b"")
                try:
                    records = decoder.decode(piece)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    if more and "truncated" in str(error):
                        wanted = len(held)
                        continue
                    raise UserError(f"{path}: {_explain(piece, error, count)}") from error
                _require_names(path, [each.token for each in records])
                yield records
                count, held, wanted = count + len(records), rest, PIECE
    except OSError as error:
        raise UserError(f"{path} cannot be read: {problem(error)}.") from None


key_of: Callable[[str], int] = hash
"""64 bits that stand for a token in this process, 0 for an empty one. Two tokens of a table as large as trainval's have
equal ones by chance in one of 10^7 runs."""


def read_table_columns(
    folder: Path,
    record: type[AnyRecord],
    fields: str,
    keep: Callable[[AnyRecord], bool] | None = None,
) -> Columns:
    """Fields of a table as columns, in the order of the file.

    Texts become large strings, tokens their `key_of` (of a list the first one's, or 0), integers int64 (0 for null),
    vectors and quaternions float64 with a row of three or four.

    Args:
        fields: Their names, separated by spaces; `<name>_text` is a token as a text.
        keep: Condition on records; the others are left out.

    Raises:
        UserError: as `read_records` does.
    """
    types = {field.name: field.type for field in msgspec.structs.fields(record)}
    kinds = {field: types.get(field, str) for field in fields.split()}
    parts = {field: [_column(kind, [])] for field, kind in kinds.items()}
    for records in read_records(folder, record):
        kept = records if keep is None else [each for each in records if keep(each)]
        for field, kind in kinds.items():
            parts[field].append(_column(kind, list(map(attrgetter(field.removesuffix("_text")), kept))))
    return {field: (pa.concat_arrays if kinds[field] is str else np.concatenate)(parts.pop(field)) for field in kinds}


def _column(kind: Any, values: list[Any]) -> Any:
    """Fields of some records, of type `kind`, as a column."""
    if kind is str:
        return pa.array(values, pa.large_string())
    if kind in _LENGTHS:
        count = _LENGTHS[kind]
        return np.fromiter(chain.from_iterable(values), np.float64, count * len(values)).reshape(-1, count)
    if kind == Token:
        values = [key_of(value) for value in values]
    elif kind == list[Token]:
        values = [key_of(value[0]) if value else 0 for value in values]
    elif kind == Integer | None:
        values = [value or 0 for value in values]
    return np.array(values, np.bool_ if kind is bool else np.int64)


def _split(held: bytes) -> tuple[bytes, bytes]:
    """A list of the whole records so far, and a list that begins with the rest; no list if no record ends."""
    cuts = [match.span() for match in _BOUNDARY.finditer(held, max(0, len(held) - _WINDOW))]
    return (held[: cuts[-1][0] + 1] + b"]", b"[" + held[cuts[-1][1] - 1 :]) if cuts else (b"", held)


def in_order(columns: Columns, rows: Int[np.ndarray, "chosen"]) -> Columns:
    """The chosen rows. Columns are taken out of `columns` one by one, so that memory holds one of them twice."""
    ordered: Columns = {}
    for name in list(columns):
        values = columns.pop(name)
        ordered[name] = values[rows] if isinstance(values, np.ndarray) else values.take(pa.array(rows))
    return ordered


def _require_names(path: Path, tokens: list[str]) -> None:
    """Check that tokens can be part of file names: not empty, not only dots, without slashes and control characters."""
    joined = "/".join(tokens)
    if joined.count("/") < max(len(tokens), 1) and "\\" not in joined and joined.isprintable():
        bad = next((token for token in tokens if not token.strip(".")), None)
    else:
        bad = next(token for token in tokens if not is_name(token))
    if bad is not None:
        raise UserError(f"{path}: token {bad!r} is empty, only dots, or has slashes or control characters; rename it")


def _explain(piece: bytes, error: Exception, before: int) -> str:
    """What is wrong with records that would not decode, and what to do.

    Args:
        before: Records of the table before this piece.
    """
    remedy = "unpack the metadata archive of this version again"
    if isinstance(error, msgspec.ValidationError):
        where = re.sub(r"\$\[(\d+)\]", lambda match: f"$[{before + int(match[1])}]", str(error))
        return f"a record is not as nuScenes v1.0 has it ({where}): correct or remove it, or {remedy}"
    try:
        records = json.loads(piece)
    except ValueError as unreadable:
        return f"cut off or not JSON, after {before} whole records ({unreadable}); {remedy}"
    for position, entry in enumerate(records if isinstance(records, list) else []):
        for field, value in entry.items() if isinstance(entry, dict) else []:
            if not _is_finite(value):
                return (
                    f"record {before + position} (token {entry.get('token')!r}) has {field} = {value}; "
                    "expected finite numbers: correct or remove the record"
                )
    return f"not JSON as nuScenes writes it ({error}); {remedy}"


def _is_finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)
