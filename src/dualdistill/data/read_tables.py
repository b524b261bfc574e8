"""JSON tables to typed records, some thousand at a time, and to columns whose links lead somewhere."""

import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int

from dualdistill.data.plausible import FARTHEST
from dualdistill.data.tables import ANNOTATION_TABLES, Integer, Quaternion, Record, Token, Vector
from dualdistill.errors import UserError
from dualdistill.files import is_name, problem

PIECE = 1 << 18
"""Bytes decoded at once: their records fit into a processor's cache."""

_BOUNDARY = re.compile(rb"\}\s*,\s*\{")
_WINDOW = 1 << 14
"""Bytes at the end of a piece in which the end of a record is searched."""

AnyRecord = TypeVar("AnyRecord", bound=Record)

Columns = dict[str, Any]
"""Columns of equal length by name: numpy arrays, or Arrow's large strings for texts."""
Rows = Int[np.ndarray, "records"]

key_of: Callable[[str], int] = hash
"""64 bits that stand for a token in this process, 0 for an empty one. Two tokens of a table as large as trainval's have
equal ones by chance in one of 10^7 runs."""


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
                cuts = [match.span() for match in _BOUNDARY.finditer(held, max(0, len(held) - _WINDOW))] or [(-1, 0)]
                end, start = cuts[-1]
                piece = held[: end + 1] + b"]" if more else held
                try:
                    records = decoder.decode(piece)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    if more and (end < 0 or "truncated" in str(error)):
                        wanted = len(held)
                        continue
                    raise UserError(f"{path}: {_explain(piece, error, count)}") from error
                for bad in (each.token for each in records if not is_name(each.token)):
                    raise UserError(
                        f"{path}: token {bad!r} is empty, only dots, or has slashes or control characters; rename it"
                    )
                yield records
                count, held, wanted = count + len(records), b"[" + held[start - 1 :], PIECE
    except OSError as error:
        raise UserError(f"{path} cannot be read: {problem(error)}.") from None


def _explain(piece: bytes, error: Exception, before: int) -> str:
    """What is wrong with records that would not decode, after `before` others, and what to do."""
    remedy = "unpack the metadata archive of this version again"
    if isinstance(error, msgspec.ValidationError):
        where = re.sub(r"\$\[(\d+)\]", lambda match: f"$[{before + int(match[1])}]", str(error))
        return f"a record is not as nuScenes v1.0 has it ({where}): correct or remove it, or {remedy}"
    try:
        records = json.loads(piece)
    except ValueError as unreadable:
        return f"cut off or not JSON, after {before} whole records ({unreadable}); {remedy}"
    for number, entry in enumerate(records if isinstance(records, list) else [], start=before):
        for field, value in entry.items() if isinstance(entry, dict) else []:
            if not isinstance(value, str) and re.search("NaN|Infinity", json.dumps(value)):
                finite = f"has {field} = {value}; expected finite numbers: correct or remove the record"
                return f"record {number} (token {entry.get('token')!r}) {finite}"
    return f"not JSON as nuScenes writes it ({error}); {remedy}"


class Table:
    """Fields of a table as columns, by name, and the key of each record's token.

    Texts become large strings, tokens their `key_of` (of a list the first one's, or 0), integers int64 (0 for null),
    vectors and quaternions float64 with a row of three or four, matrices objects.

    Args:
        folder: Version folder of a root.
        fields: Names, separated by spaces; `token_text` is the token as a text.
        keep: Condition on records; the others are left out.

    Raises:
        UserError: as `read_records`, and for a token that is there twice.
    """

    def __init__(
        self, folder: Path, record: type[AnyRecord], fields: str, keep: Callable[[AnyRecord], bool] | None = None
    ):
        self.folder, self.record = folder, record
        self.path = folder / f"{record.table()}.json"
        types = {field.name: field.type for field in msgspec.structs.fields(record)}
        kinds = {field: types.get(field, str) for field in ("token", *fields.split())}
        parts = {field: [_column(kind, [])] for field, kind in kinds.items()}
        for records in read_records(folder, record):
            kept = records if keep is None else [each for each in records if keep(each)]
            for field, kind in kinds.items():
                parts[field].append(_column(kind, list(map(attrgetter(field.removesuffix("_text")), kept))))
        join = {field: pa.concat_arrays if kind is str else np.concatenate for field, kind in kinds.items()}
        self.columns: Columns = {field: join[field](parts.pop(field)) for field in kinds}
        self.keys = self.columns.pop("token")
        order = np.argsort(self.keys)
        for row in order[1:][np.diff(self.keys[order]) == 0]:
            raise UserError(f"{self.path}: token {self._read(row).token!r} occurs twice; every record needs its own")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, field: str) -> Any:
        return self.columns[field]

    def sort(self, order: Rows) -> None:
        """Bring the records into an order, column by column, so that memory holds one of them twice."""
        self.keys = self.keys[order]
        for name, values in self.columns.items():
            self.columns[name] = values[order] if isinstance(values, np.ndarray) else values.take(pa.array(order))

    def rows(self, of: "Table", field: str, *, optional: bool = False) -> Rows:
        """Row of this table, in its final order, of each token in a field of another, which is taken out of that.

        Args:
            optional: Whether an empty token means "none": its row is -1.

        Raises:
            UserError: for a token that is not in this table.
        """
        keys = of.columns.pop(field)
        found = pc.index_in(pa.array(keys), value_set=pa.array(self.keys)).fill_null(-1).to_numpy().astype(np.int64)
        lost = (found < 0) & (keys != 0) if optional else found < 0
        if lost.any():
            record = of._read(lost.argmax())
            link = f"{of.record.table()}.{field} of record {record.token!r} is {getattr(record, field)!r}"
            why = "the tables do not belong together, or a cut removed it: restore the record or clear the link"
            raise UserError(f"{link}, which is not in {self.path}; {why}")
        return found

    def links(self, group: Rows, rank: Rows, what: str) -> tuple[Rows, Rows]:
        """Rows of the records before and after each one by `prev` and `next`, -1 for none.

        Args:
            group: A record and those that it links to have one group, which `what` describes.
            rank: Rises along the links, so that nothing that follows them can run in a circle.

        Raises:
            UserError: for a link that leads nowhere, to another group or the wrong way.
        """
        found = []
        for field, sign, order in (("prev", -1, "an earlier"), ("next", 1, "a later")):
            link = self.rows(self, field, optional=True)
            allowed = (link < 0) | ((sign * (rank[link] - rank) > 0) & (group[link] == group))
            self.require(allowed, field, f"a {field} that is not {order} record of its {what}")
            found.append(link)
        return found[0], found[1]

    def require(self, good: Bool[np.ndarray, "records"], fields: str, what: str) -> None:
        """Check a condition, about some fields (separated by spaces), on every record.

        Raises:
            UserError: naming the first record that has `what` instead.
        """
        if not good.all():
            record = self._read(good.argmin())
            values = ", ".join(f"{field} = {getattr(record, field)!r}" for field in fields.split())
            raise UserError(f"{self.path}: record {record.token!r} has {what} ({values}); correct or remove the record")

    def require_poses(self) -> None:
        """Check that quaternions have a direction, and positions lie on the Earth; see `require`."""
        rotation, translation = self["rotation"], self["translation"]
        length = np.einsum("ij,ij->i", rotation, rotation)
        self.require((length > 1e-12) & (length < 1e12), "rotation", "a rotation of length zero, or a huge one")
        near = (np.abs(translation) < FARTHEST).all(axis=1)
        self.require(near, "translation", f"a translation of {FARTHEST:g} m or more")

    def _read(self, row: int | np.integer) -> Record:
        """The record of a row, searched in the file again: errors alone need it."""
        parts = read_records(self.folder, self.record)
        return next(each for records in parts for each in records if key_of(each.token) == self.keys[row])


def _column(kind: Any, values: list[Any]) -> Any:
    """Fields of some records, of type `kind`, as a column."""
    if kind is str:
        return pa.array(values, pa.large_string())
    if kind in (Vector, Quaternion):
        width = 3 if kind == Vector else 4
        return np.fromiter(chain.from_iterable(values), np.float64, width * len(values)).reshape(-1, width)
    if kind == list[list[float]]:
        return np.fromiter(values, object, len(values))
    if kind == Token:
        values = [key_of(value) for value in values]
    elif kind == list[Token]:
        values = [key_of(value[0]) if value else 0 for value in values]
    elif kind == Integer | None:
        values = [value or 0 for value in values]
    return np.array(values, np.bool_ if kind is bool else np.int64)
