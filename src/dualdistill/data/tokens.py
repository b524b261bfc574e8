"""Tokens as arrays, and the links between tables found by sorting: no Python object for each of millions."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped, UInt64

from dualdistill.errors import UserError

Tokens = Shaped[np.ndarray, "records"]
"""Of numpy's bytes type, UTF-8; one that is shorter than the longest ends in zeros, which are not part of it."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
_WORD = 8


def as_texts(values: Iterable[str]) -> Tokens:
    """Texts as one array of bytes."""
    return np.array([value.encode() for value in values], dtype=np.bytes_)


class Positions:
    """Where each token of a table stands, and a word for tokens that lead nowhere."""

    def __init__(self, folder: Path, name: str, tokens: Tokens):
        self.path = folder / f"{name}.json"
        self.tokens = tokens
        self.words = -(-tokens.itemsize // _WORD)
        for salt in itertools.count():
            self.salt = np.uint64(salt)
            keys = self._keys(tokens)
            self.order = np.argsort(keys)
            self.keys = keys[self.order]
            alike = np.flatnonzero(self.keys[1:] == self.keys[:-1])
            if not len(alike):
                return
            if (tokens[self.order[alike]] == tokens[self.order[alike + 1]]).any():
                raise UserError(f"{self.path}: token {_twice(tokens)!r} occurs twice; every record needs its own")

    def of(
        self, tokens: Tokens, referrers: Tokens, field: str, *, may_be_empty: bool = False
    ) -> Int[np.ndarray, "records"]:
        """Position of each token.

        Args:
            tokens: What `field` says in each record that refers to this table.
            referrers: Token of each of those records, for the error.
            field: `<table>.<field>`, for the error.
            may_be_empty: Whether an empty token means "none": its position is -1.

        Raises:
            UserError: for a token that is not in the table.
        """
        found = self._find(tokens)
        lost = found < 0
        if may_be_empty:
            lost &= tokens != b""
        if lost.any():
            record = int(np.flatnonzero(lost)[0])
            raise UserError(
                f"{field} of record {referrers[record].decode()!r} is {tokens[record].decode()!r}, which is not in "
                f"{self.path}; the tables do not belong together, or a cut left links to what it removed: "
                "restore the record or clear the link"
            )
        return found

    def _find(self, tokens: Tokens) -> Int[np.ndarray, "records"]:
        """Position of each token, -1 for one that is not here."""
        if not len(self.tokens):
            return np.full(len(tokens), -1)
        keys = self._keys(tokens)
        order = np.argsort(keys)  # searched in rising order, the table passes by once
        place = np.empty(len(tokens), np.int64)
        place[order] = np.searchsorted(self.keys, keys[order])
        found = self.order[np.minimum(place, len(self.keys) - 1)]
        return np.where(self.tokens[found] == tokens, found, -1)

    def _keys(self, tokens: Tokens) -> UInt64[np.ndarray, "records"]:
        """64 bits of each token: the same for the same token, and two tokens of this table differ in them."""
        words = np.ascontiguousarray(tokens, f"S{_WORD * self.words}").view(np.uint64).reshape(-1, self.words)
        keys = np.full(len(words), self.salt)
        for word in words.T:
            keys = (keys ^ word) * _MIX
            keys ^= keys >> np.uint64(29)
        return keys


def _twice(tokens: Tokens) -> str:
    """The token that occurs again first."""
    seen: set[bytes] = set()
    return next(token.decode() for token in tokens.tolist() if token in seen or seen.add(token))  # type: ignore[func-returns-value]
