"""A table whose records others refer to: its columns, the links that tokens make, and errors that name a record."""

from collections.abc import Callable
from functools import cached_property
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from dualdistill.data.plausible import FARTHEST
from dualdistill.data.read_tables import AnyRecord, read_records
from dualdistill.data.tables import Integer, Quaternion, Record, Token, Vector
from dualdistill.errors import UserError

Columns = dict[str, Any]
"""Columns of equal length by name: numpy arrays, or Arrow's large strings for texts."""
Rows = Int[np.ndarray, "records"]

key_of: Callable[[str], int] = hash
"""64 bits that stand for a token in this process, 0 for an empty one. Two tokens of a table as large as trainval's have
equal ones by chance in one of 10^7 runs."""


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
