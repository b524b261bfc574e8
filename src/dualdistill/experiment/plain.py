"""Experiments as plain JSON values and back, typed changes of one (`--set a.b=c`), and where two of them differ."""

import dataclasses
import difflib
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_origin

from dualdistill.distill.distillbev import DistillBevConfig
from dualdistill.distill.dualdistill import DualDistillConfig
from dualdistill.distill.labeldistill import LabelDistillConfig
from dualdistill.distill.method import DistillerConfig
from dualdistill.distill.tig_bev import TigBevConfig
from dualdistill.distill.x3kd import X3kdConfig
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.external import UnloadedMethod, is_reference, load
from dualdistill.settings import alternatives, convert, describe, hints_of

METHODS: dict[str, type[DistillerConfig]] = {
    "dualdistill": DualDistillConfig,
    "distillbev": DistillBevConfig,
    "labeldistill": LabelDistillConfig,
    "tigbev": TigBevConfig,
    "x3kd": X3kdConfig,
}
"""Name of each method in an experiment file."""


def to_plain(experiment: Experiment) -> dict[str, Any]:
    """An experiment as JSON values; a distiller carries the name of its method: ours, or where it stands outside this
    package."""
    plain, distiller = dataclasses.asdict(experiment), experiment.distiller
    if isinstance(distiller, UnloadedMethod):
        plain["distiller"] = {"method": distiller.reference, **json.loads(distiller.settings)}
    elif distiller is not None:
        if not dataclasses.is_dataclass(distiller) or isinstance(distiller, type):
            raise UserError(f"A distiller's configuration must be a dataclass, {type(distiller).__name__} is none.")
        place = f"{distiller.__class__.__module__}:{distiller.__class__.__qualname__}"
        name = next((name for name, kind in METHODS.items() if type(distiller) is kind), place)
        plain["distiller"] = {"method": name, **plain["distiller"]}
    return json.loads(json.dumps(plain))


def from_plain(plain: dict[str, Any]) -> Experiment:
    """The experiment `to_plain` made; a method outside this package stays unloaded. Raises UserError for a key or value
    that is unknown to this version."""
    try:
        values = dict(plain)
        method = values.pop("distiller", None)
        if method is not None:
            method = dict(method)
            name = method.pop("method")
            if is_reference(name):
                method = UnloadedMethod(reference=name, settings=json.dumps(method))
            else:
                method = _convert(method, METHODS[name], "distiller")
        hints = hints_of(Experiment)
        return Experiment(**{key: _convert(value, hints[key], key) for key, value in values.items()}, distiller=method)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"This experiment was not written by this version of dualdistill: {error}. "
            "Use the version named in the run's environment.json."
        ) from None


def with_method(experiment: Experiment, *, trust: bool) -> Experiment:
    """The experiment with its method loaded, if that stands outside this package: its code runs. Raises UserError
    without `trust`; and if it is not where it was, or has other settings now."""
    method = experiment.distiller
    if not isinstance(method, UnloadedMethod):
        return experiment
    if not trust:
        raise UserError(
            f"This run needs code outside this package: {method.reference}. It can do anything that you can; read it, "
            "and give the same command with --trust if you trust it."
        )
    try:
        return replace(experiment, distiller=_convert(json.loads(method.settings), load(method.reference), "distiller"))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{method.reference} does not take the settings of this run any more: {error}.") from None


def _convert(value: Any, hint: Any, name: str) -> Any:
    """JSON value to the field's type; unknown keys of a record are errors."""
    kinds = _records(hint)
    if not kinds or (value is None and type(None) in alternatives(hint)):
        return convert(value, hint, name, strict=True)
    (kind,) = kinds
    if not isinstance(value, dict):
        raise ValueError(f"{name} must hold settings by name, got {value!r}")
    hints = hints_of(kind)
    return kind(**{each: _convert(item, hints[each], f"{name}.{each}") for each, item in value.items()})


def _records(hint: Any) -> list[Any]:
    """The kinds of record that a field can hold."""
    return [kind for kind in alternatives(hint) if dataclasses.is_dataclass(kind)]


def differences(a: Any, b: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Settings in which two plain experiments differ: (key, value in a, value in b), keys joined by dots."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = {each: f"{prefix}.{each}" if prefix else each for each in a | b}
        return [row for each, key in keys.items() for row in differences(a.get(each), b.get(each), key)]
    return [] if a == b else [(prefix, a, b)]


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


def _assign(record: Any, assignments: list[tuple[str, list[str], str]]) -> Any:
    """`record` with the assignments (whole key, rest of its path, text) applied, then checked as one."""
    kind: Any = type(record)
    names, hints = [f.name for f in dataclasses.fields(kind)], hints_of(kind)
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
        current = changes.get(name, getattr(record, name))
        inside = _default(hints[name]) if current is None else current
        if not dataclasses.is_dataclass(inside):
            what = "none in this recipe: take a recipe that has it" if current is None else "a single value"
            raise UserError(f"--set {deeper[0][0]}: {name!r} is {what}.")
        changes[name] = _assign(inside, deeper)
    try:
        return replace(record, **changes)
    except ValueError as error:
        typed = ", ".join(f"{key}={text}" for key, _, text in assignments)
        raise UserError(f"--set {typed}: {error}.") from None


def _default(hint: Any) -> Any:
    """The record that a field can hold, made of defaults; None where it holds none, or one that needs settings."""
    for kind in _records(hint):
        with suppress(TypeError):
            return kind()
    return None


def _parse(text: str, hint: Any, key: str) -> Any:
    raw: Any = text
    if text.lower() == "none":
        raw = None
    elif text.lower() == "default" and (record := _default(hint)) is not None:
        return record
    else:
        is_tuple = any(get_origin(kind) is tuple for kind in alternatives(hint))
        with suppress(ValueError, RecursionError):  # no JSON, or a number of thousands of digits
            raw = json.loads(f"[{text.strip('()[]')}]" if is_tuple else text)
    for value in (raw, text):  # as text, too: training.precision=32 means the word
        with suppress(ValueError):
            return convert(value, hint, key)
    raise UserError(f"--set {key}={text[:60]}: expected {describe(hint)}.")
