"""Experiments as plain JSON values and back, and where two of them differ."""

import dataclasses
import json
from dataclasses import replace
from typing import Any

from dualdistill.distill.distillbev import DistillBevConfig
from dualdistill.distill.dualdistill import DualDistillConfig
from dualdistill.distill.labeldistill import LabelDistillConfig
from dualdistill.distill.method import DistillerConfig
from dualdistill.distill.tig_bev import TigBevConfig
from dualdistill.distill.x3kd import X3kdConfig
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.external import UnloadedMethod, is_reference, load, reference_of
from dualdistill.settings import alternatives, convert, hints_of

METHODS: dict[str, type[DistillerConfig]] = {
    "dualdistill": DualDistillConfig,
    "distillbev": DistillBevConfig,
    "labeldistill": LabelDistillConfig,
    "tigbev": TigBevConfig,
    "x3kd": X3kdConfig,
}
"""Name of each method in an experiment file."""


def to_plain(experiment: Experiment) -> dict[str, Any]:
    """An experiment as JSON values; a distiller carries the name of its method."""
    plain = dataclasses.asdict(experiment)
    if experiment.distiller is not None:
        plain["distiller"] = _plain_method(experiment.distiller)
    return json.loads(json.dumps(plain))


def from_plain(plain: dict[str, Any]) -> Experiment:
    """The experiment `to_plain` made; raises UserError for a key or value that is unknown to this version."""
    values: dict[str, Any] = {}
    hints = hints_of(Experiment)
    try:
        for name, value in plain.items():
            if name == "distiller":
                values[name] = _method(value)
            else:
                values[name] = _convert(value, hints[name], name)
        return Experiment(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"This experiment was not written by this version of dualdistill: {error}. "
            "Use the version named in the run's environment.json."
        ) from None


def _convert(value: Any, hint: Any, name: str) -> Any:
    """JSON value to the field's type; unknown keys of a record are errors."""
    kinds: list[Any] = [kind for kind in alternatives(hint) if dataclasses.is_dataclass(kind)]
    if not kinds or (value is None and type(None) in alternatives(hint)):
        return convert(value, hint, name, strict=True)
    (kind,) = kinds
    if not isinstance(value, dict):
        raise ValueError(f"{name} must hold settings by name, got {value!r}")
    hints = hints_of(kind)
    return kind(**{each: _convert(item, hints[each], f"{name}.{each}") for each, item in value.items()})


def _plain_method(distiller: DistillerConfig) -> dict[str, Any]:
    """Settings of a distiller with the name of its method: ours, or where it stands outside this package."""
    if isinstance(distiller, UnloadedMethod):
        return {"method": distiller.reference, **json.loads(distiller.settings)}
    if not dataclasses.is_dataclass(distiller) or isinstance(distiller, type):
        raise UserError(f"A distiller's configuration must be a dataclass, {type(distiller).__name__} is none.")
    ours = next((name for name, kind in METHODS.items() if type(distiller) is kind), None)
    return {"method": ours or reference_of(type(distiller)), **dataclasses.asdict(distiller)}


def _method(plain: dict[str, Any] | None) -> DistillerConfig | None:
    """What `_plain_method` made plain; one outside this package stays unloaded."""
    if plain is None:
        return None
    settings = dict(plain)
    method = settings.pop("method")
    if is_reference(method):
        return UnloadedMethod(reference=method, settings=json.dumps(settings))
    return _convert(settings, METHODS[method], "distiller")


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


def differences(a: Any, b: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Settings in which two plain experiments differ: (key, value in a, value in b), keys joined by dots."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [*a, *(key for key in b if key not in a)]
        return [
            row for key in keys for row in differences(a.get(key), b.get(key), f"{prefix}.{key}" if prefix else key)
        ]
    return [] if a == b else [(prefix, a, b)]
