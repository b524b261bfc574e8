"""`--set a.b=c`: typed changes of an experiment."""

import dataclasses
import difflib
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_origin

from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.settings import alternatives, convert, describe, hints_of


def override(experiment: Experiment, assignments: list[str]) -> Experiment:
    """The experiment with `a.b=c` assignments applied all at once, typed and checked. Raises UserError for an unknown
    key (with the nearest ones), a value of the wrong type, or one the record refuses."""
    parsed = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"--set takes key=value, for example --set training.batch_size=4; got {assignment!r}.")
        parsed.append((key.strip(), key.strip().split("."), text.strip()))
    return _assign(experiment, parsed) if parsed else experiment


def _assign(record: Any, assignments: list[tuple[str, list[str], str]], kind: type | None = None) -> Any:
    """`record` with the assignments (whole key, rest of its path, text) applied, then checked as one. `kind`: where
    `record` is None: what it becomes, other fields at their defaults."""
    kind = kind or type(record)
    names = [f.name for f in dataclasses.fields(kind)]
    hints = hints_of(kind)
    changes: dict[str, Any] = {}
    inner: dict[str, list[tuple[str, list[str], str]]] = {}
    for key, (name, *rest), text in assignments:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Known here: {', '.join(names)}."
            raise UserError(f"--set {key}: {kind.__name__} has no {name!r}. {hint}")
        if rest:
            inner.setdefault(name, []).append((key, rest, text))
        else:
            changes[name] = _parse(text, hints[name], key)
    for name, deeper in inner.items():
        current = changes.get(name, getattr(record, name, None))
        changes[name] = _assign(current, deeper, _record_kind(current, hints[name], deeper[0][0], name))
    typed = ", ".join(f"{key}={text}" for key, _, text in assignments)
    try:
        return kind(**changes) if record is None else replace(record, **changes)
    except ValueError as error:
        raise UserError(f"--set {typed}: {error}.") from None


def _record_kind(value: Any, hint: Any, key: str, name: str) -> type:
    """The record that a deeper key changes, or that it makes where there is none and every field has a default."""
    if dataclasses.is_dataclass(value):
        return type(value)
    kinds: list[Any] = [kind for kind in alternatives(hint) if dataclasses.is_dataclass(kind)]
    if value is None and len(kinds) == 1 and not _without_default(kinds[0]):
        return kinds[0]
    what = "none in this recipe: take a recipe that has it" if value is None else "a single value"
    raise UserError(f"--set {key}: {name!r} is {what}.")


def _without_default(kind: Any) -> list[str]:
    missing = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing]


def _parse(text: str, hint: Any, key: str) -> Any:
    records: list[Any] = [kind for kind in alternatives(hint) if dataclasses.is_dataclass(kind)]
    if text.lower() == "none":
        raw: Any = None
    elif text.lower() == "default" and records and not _without_default(records[0]):
        return records[0]()
    else:
        is_tuple = any(get_origin(kind) is tuple for kind in alternatives(hint))
        literal = f"[{text.strip('()[]')}]" if is_tuple else text
        try:
            raw = json.loads(literal)
        except (ValueError, RecursionError):  # no JSON, or a number of thousands of digits
            raw = text
    for value in (raw, text):  # as text, too: training.precision=32 means the word
        with suppress(ValueError):
            return convert(value, hint, key)
    raise UserError(f"--set {key}={text[:60]}: expected {describe(hint)}.")
