"""Weights files that are damaged, of other networks, or not finite."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.robust.cases.case import DAMAGES, Build, Case, distil
from tests.robust.places import Places


def weights() -> Iterator[Case]:
    """Weights files that are damaged, of other networks, or not finite."""
    for damage, change in DAMAGES.items():
        for verb in ("evaluate", "predict"):
            yield Case("11 weights", f"{verb}: weights {damage}", _damaged_weights(verb, change), ("safetensors",))
    for verb in ("evaluate", "predict", "export"):
        for value in (float("nan"), float("inf")):
            yield Case("1 not finite", f"{verb}: {value}", _poisoned(verb, value), ("not finite",))
    yield Case("1 not finite", "teacher", _poisoned_teacher, ("not finite",))
    for key in ("role", "recipe", "experiment", "data"):
        yield Case(
            "11 weights",
            f"facts without {key}",
            _facts(lambda facts, key=key: facts.pop(key, None)),
            ("damaged|record",),
        )
        yield Case(
            "11 weights",
            f"facts {key} a number",
            _facts(lambda facts, key=key: facts.update({key: 3})),
            ("damaged|record",),
        )
    yield Case("11 weights", "facts of a student's teacher", _teacher_role, ("LiDAR teacher|role|holds",))


def _verb(verb: str, what: Path, at: Places) -> list[str]:
    more = ["--out", str(at.new() / "out"), "--format", "torch"] if verb == "export" else []
    return [verb, str(what), *more, "--data", str(at.root())]


def _damaged_weights(verb: str, change: Callable[[bytes], bytes]) -> Build:
    def build(at: Places) -> list[str]:
        path = at.weights(at.run())
        path.write_bytes(change(path.read_bytes()))
        return _verb(verb, path, at)

    return build


def rewrite_weights(path: Path, facts: Callable[[dict[str, Any]], Any], value: float | None = None) -> None:
    """Change the metadata of a weights file, and optionally every number of its first tensor."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    plain = json.loads(metadata["dualdistill"])
    facts(plain)
    state = load_file(path)
    if value is not None:
        name = next(name for name, tensor in state.items() if tensor.is_floating_point())
        state[name] = torch.full_like(state[name], value)
    save_file(state, path, metadata={"dualdistill": json.dumps(plain)})


def _poisoned(verb: str, value: float) -> Build:
    def build(at: Places) -> list[str]:
        path = at.weights(at.run())
        rewrite_weights(path, lambda facts: None, value)
        return _verb(verb, path, at)

    return build


def _poisoned_teacher(at: Places) -> list[str]:
    path = at.weights(at.run("teacher-centerpoint"))
    rewrite_weights(path, lambda facts: None, float("nan"))
    return distil(at, at.new(), "--teacher", str(path))


def _facts(change: Callable[[dict[str, Any]], Any]) -> Build:
    def build(at: Places) -> list[str]:
        path = at.weights(at.run())
        rewrite_weights(path, change)
        return ["predict", str(path), "--data", str(at.root())]

    return build


def _teacher_role(at: Places) -> list[str]:
    return distil(at, at.new(), "--teacher", str(at.run()))
