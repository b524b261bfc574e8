"""Tokens as arrays, and the links between tables found by sorting: no Python object for each of millions."""

import itertools
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped, UInt64

from dualdistill.errors import UserError

Tokens = Shaped[np.ndarray, "records"]
"""Of numpy's bytes type, UTF-8; one that is shorter than the longest ends in zeros, which are not part of it."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
_WORD = 8

_FEW = 1 << 16
"""Keys that stay in a processor's cache."""


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
            keys = np.sort(self._keys(tokens))
            if not (keys[1:] == keys[:-1]).any():
                return
            del keys
            order, keys = self._sorted
            alike = np.flatnonzero(keys[1:] == keys[:-1])
            if (tokens[order[alike]] == tokens[order[alike + 1]]).any():
                raise UserError(f"{self.path}: token {_twice(tokens)!r} occurs twice; every record needs its own")
            del self._sorted

    def of(
        self,
        tokens: Tokens,
        referrers: Tokens,
        field: str,
        *,
        may_be_empty: bool = False,
        guess: Int[np.ndarray, "records"] | None = None,
    ) -> Int[np.ndarray, "records"]:
        """Position of each token.

        Args:
            tokens: What `field` says in each record that refers to this table.
            referrers: Token of each of those records, for the error.
            field: `<table>.<field>`, for the error.
            may_be_empty: Whether an empty token means "none": its position is -1.
            guess: Where each token likely stands: it is looked there first, which is much faster than to search.
                May be out of range.

        Raises:
            UserError: for a token that is not in the table.
        """
        found = self.find(tokens) if guess is None else self._seen(tokens, guess)
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

    def _seen(self, tokens: Tokens, guess: Int[np.ndarray, "records"]) -> Int[np.ndarray, "records"]:
        """Position of each token, -1 for one that is not here."""
        if not len(self.tokens):
            return self.find(tokens)
        found = np.clip(guess, 0, len(self.tokens) - 1)
        wrong = np.flatnonzero(self.tokens[found] != tokens)
        found[wrong] = -1
        if not (self.tokens == b"").any():  # an empty token need not be searched
            wrong = wrong[tokens[wrong] != b""]
        if len(wrong):
            found[wrong] = self.find(tokens[wrong])
        return found

    def find(self, tokens: Tokens) -> Int[np.ndarray, "records"]:
        """Position of each token, -1 for one that is not here."""
        changes = np.flatnonzero(tokens[1:] != tokens[:-1]) + 1
        if 2 * len(changes) < len(tokens):  # often records that follow each other refer to the same
            begins = np.concatenate([[0], changes])
            return np.repeat(self._find(tokens[begins]), np.diff(begins, append=len(tokens)))
        return self._find(tokens)

    def _find(self, tokens: Tokens) -> Int[np.ndarray, "records"]:
        if not len(self.tokens):
            return np.full(len(tokens), -1)
        order, known = self._sorted
        keys = self._keys(tokens)
        if len(known) < _FEW:
            place = np.searchsorted(known, keys)
        else:
            rising = np.argsort(keys)  # searched in rising order, the table passes by once
            place = np.empty(len(tokens), np.int64)
            place[rising] = np.searchsorted(known, keys[rising])
        found = order[np.minimum(place, len(known) - 1)]
        return np.where(self.tokens[found] == tokens, found, -1)

    @cached_property
    def _sorted(self) -> tuple[Int[np.ndarray, "records"], UInt64[np.ndarray, "records"]]:
        """The positions by key, and the keys in that order."""
        keys = self._keys(self.tokens)
        order = np.argsort(keys)
        return order, keys[order]

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
