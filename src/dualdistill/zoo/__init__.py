"""Trained models that ship with the package: half-precision safetensors, each with a card (`NAME.json`).

`zoo:NAME` stands for a model wherever weights are taken. A model is added by its two files; the tests check every card.
"""

import hashlib
from functools import cache
from pathlib import Path

import msgspec

from dualdistill.errors import UserError

PREFIX = "zoo:"
"""Start of a name that is looked up here."""

FOLDER = Path(__file__).parent


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """Description of a model: what it is, how to make it again, how well it scored, and the fingerprint of its file."""

    what: str
    recipe: str | None
    """Recipe that trained it; None for an image backbone alone, which is no detector."""
    settings: tuple[str, ...] = ()
    """Changes of the recipe, `a.b=c`."""
    seed: int | None
    data: str
    """The data it was trained on, and those of its scores."""
    command: str
    """Command that makes it, with its data."""
    mAP: float | None
    """Score of this file, in [0, 1]; None where it cannot be evaluated."""
    NDS: float | None
    sha256: str

    @property
    def score(self) -> dict[str, float] | None:
        """mAP and NDS by name."""
        return None if self.mAP is None or self.NDS is None else {"mAP": self.mAP, "NDS": self.NDS}


@cache
def cards() -> dict[str, Card]:
    """Card of every model, by name."""
    return {file.stem: msgspec.json.decode(file.read_bytes(), type=Card) for file in sorted(FOLDER.glob("*.json"))}


def card(name: str) -> Card:
    """Card of one model, by name, with or without "zoo:". Raises UserError for an unknown name, with the known ones."""
    name = name.removeprefix(PREFIX)
    if name not in cards():
        raise UserError(
            f"There is no model zoo:{name}. Expected one of {', '.join(PREFIX + known for known in cards())}."
        )
    return cards()[name]


@cache
def path(name: str) -> Path:
    """The weights file of a model, its bytes checked against the card. `name`: with or without "zoo:". Raises UserError
    for an unknown name, which lists the known ones, and for a missing or changed file."""
    wanted = card(name).sha256
    file = FOLDER / f"{name.removeprefix(PREFIX)}.safetensors"
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
        raise UserError(f"{file} is missing or is not the file of its card: install dualdistill again.")
    return file


def name_of(file: Path) -> str | None:
    """`zoo:NAME` of a weights file of the zoo; None for other files."""
    inside = file.resolve().parent == FOLDER.resolve() and file.stem in cards()
    return PREFIX + file.stem if inside else None


def with_fingerprint(sha256: str) -> Path | None:
    """The model with these bytes; None where the zoo has none."""
    return next((path(name) for name, card in cards().items() if card.sha256 == sha256), None)
