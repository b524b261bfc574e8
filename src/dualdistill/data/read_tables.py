"""JSON tables to typed records, some thousand at a time, and to columns whose links lead somewhere."""

import json
import math
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
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


def _split(held: bytes) -> tuple[bytes, bytes]:
    """A list of the whole records so far, and a list that begins with the rest; no list if no record ends."""
    cuts = [match.span() for match in _BOUNDARY.finditer(held, max(0, len(held) - _WINDOW))]
    return (held[: cuts[-1][0] + 1] + b"]", b"[" + held[cuts[-1][1] - 1 :]) if cuts else (b"", held)


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


class Table:
    """Fields of a table as columns, by name, and the key of each record's token.

    Texts become large strings, tokens their `key_of` (of a list the first one's, or 0), integers int64 (0 for null),
    vectors and quaternions float64 with a row of three or four, matrices objects.

    Args:
        folder: Version folder of a root.
        fields: Names, separated by spaces; `token_text` is the token as a text.
        keep: Condition on records; the others are left out.

    Raises:
        UserError: as `read_records` does.
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

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, field: str) -> Any:
        return self.columns[field]

    def pop(self, field: str) -> Any:
        """A column that is not needed here any more."""
        return self.columns.pop(field)

    def sort(self, order: Rows) -> None:
        """Bring the records into an order, column by column, so that memory holds one of them twice."""
        self.keys = self.keys[order]
        for name, values in self.columns.items():
            self.columns[name] = values[order] if isinstance(values, np.ndarray) else values.take(pa.array(order))

    @cached_property
    def _sorted(self) -> tuple[Rows, Rows]:
        """Rows by key, and the keys in that order."""
        order = np.argsort(self.keys)
        keys = self.keys[order]
        if (keys[1:] == keys[:-1]).any():
            row = int(order[1:][keys[1:] == keys[:-1]][0])
            raise UserError(f"{self.path}: token {self._read(row).token!r} occurs twice; every record needs its own")
        return order, keys

    def rows(self, of: "Table", field: str, *, optional: bool = False) -> Rows:
        """Row of this table, in its final order, of each token in a field of another, which is taken out of that.

        Args:
            optional: Whether an empty token means "none": its row is -1.

        Raises:
            UserError: for a token that is not in this table, or is there twice.
        """
        keys, (order, known) = of.pop(field), self._sorted
        if not len(known):
            order, known = np.array([-1]), np.zeros(1, np.int64)
        rising = np.argsort(keys)  # searched in rising order, the table passes the processor's cache once
        place = np.empty(len(keys), np.int64)
        place[rising] = np.searchsorted(known, keys[rising]).clip(max=len(known) - 1)
        found = np.where(known[place] == keys, order[place], -1)
        lost = (found < 0) & (keys != 0) if optional else found < 0
        if lost.any():
            record = of._read(int(np.flatnonzero(lost)[0]))
            token = getattr(record, field)
            raise UserError(
                f"{of.record.table()}.{field} of record {record.token!r} is {token!r}, which is not in {self.path}; "
                "the tables do not belong together, or a cut left links to what it removed: restore the record or "
                "clear the link"
            )
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
        """Check a condition on every record.

        Args:
            fields: Those that the condition is about, separated by spaces.
            what: What a record has where the condition does not hold.

        Raises:
            UserError: naming the first such record.
        """
        if not good.all():
            record = self._read(int(np.flatnonzero(~good)[0]))
            values = ", ".join(f"{field} = {getattr(record, field)!r}" for field in fields.split())
            raise UserError(f"{self.path}: record {record.token!r} has {what} ({values}); correct or remove the record")

    def require_poses(self) -> None:
        """Check that quaternions have a direction, and positions lie on the Earth; see `require`."""
        rotation, translation = self["rotation"], self["translation"]
        length = np.einsum("ij,ij->i", rotation, rotation)
        self.require((length > 1e-12) & (length < 1e12), "rotation", "a rotation of length zero, or a huge one")
        near = (np.abs(translation) < FARTHEST).all(axis=1)
        self.require(near, "translation", f"a translation of {FARTHEST:g} m or more")

    def _read(self, row: int) -> Record:
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
