"""Tokens of a table, the links between tables that they make, and errors that name a record."""

from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from dualdistill.data.plausible import FARTHEST
from dualdistill.data.read_tables import Columns, key_of, read_records
from dualdistill.data.tables import Record
from dualdistill.errors import UserError

Keys = Int[np.ndarray, "records"]


class Tokens:
    """Tokens of the records of one table, by their keys, in any order."""

    def __init__(self, folder: Path, record: type[Record], keys: Keys):
        self.folder, self.record, self.keys = folder, record, keys
        self.path = folder / f"{record.table()}.json"

    @cached_property
    def _sorted(self) -> tuple[Int[np.ndarray, "records"], Keys]:
        """Rows by key, and the keys in that order."""
        order = np.argsort(self.keys)
        keys = self.keys[order]
        if (keys[1:] == keys[:-1]).any():
            row = int(order[1:][keys[1:] == keys[:-1]][0])
            raise UserError(f"{self.path}: token {self._read(row).token!r} occurs twice; every record needs its own")
        return order, keys

    def positions(self, of: "Tokens", field: str, keys: Keys, *, optional: bool = False) -> Int[np.ndarray, "records"]:
        """Row of this table of each token that another table refers to.

        Args:
            of: The table that refers.
            field: Its field.
            keys: The field's tokens, one for each record of that table.
            optional: Whether an empty token means "none": its row is -1.

        Raises:
            UserError: for a token that is not in this table, or is there twice.
        """
        order, known = self._sorted
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

    def links(
        self, columns: Columns, group: Int[np.ndarray, "records"], rank: Int[np.ndarray, "records"], what: str
    ) -> dict[str, Int[np.ndarray, "records"]]:
        """Rows of the records before and after each one, -1 for none.

        Args:
            columns: `prev` and `next` are taken out of them.
            group: A record and those that it links to have one group, which `what` describes.
            rank: Rises along the links, so that nothing that follows them can run in a circle.

        Raises:
            UserError: for a link that leads nowhere, to another group or the wrong way.
        """
        found = {}
        for field, sign, order in (("prev", -1, "an earlier"), ("next", 1, "a later")):
            link = found[field] = self.positions(self, field, columns.pop(field), optional=True)
            allowed = (link < 0) | ((sign * (rank[link] - rank) > 0) & (group[link] == group))
            self.require(allowed, field, f"a {field} that is not {order} record of its {what}")
        return found

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

    def require_poses(
        self, rotation: Float[np.ndarray, "records 4"], translation: Float[np.ndarray, "records 3"]
    ) -> None:
        """Check that quaternions have a direction, and positions lie on the Earth; see `require`."""
        length = np.einsum("ij,ij->i", rotation, rotation)
        self.require((length > 1e-12) & (length < 1e12), "rotation", "a rotation of length zero, or a huge one")
        near = (np.abs(translation) < FARTHEST).all(axis=1)
        self.require(near, "translation", f"a translation of {FARTHEST:g} m or more")

    def _read(self, row: int) -> Record:
        """The record of a row, searched in the file again: errors alone need it."""
        parts = read_records(self.folder, self.record)
        return next(each for records in parts for each in records if key_of(each.token) == self.keys[row])
