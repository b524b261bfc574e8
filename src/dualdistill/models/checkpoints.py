"""Weights on disk: safetensors with their description as metadata, loaded strictly, never unpickled."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dualdistill.errors import UserError
from dualdistill.files import decode_json, draft, problem
from dualdistill.ops.finite import require_finite

_KEY = "dualdistill"


def save_weights(path: Path, module: nn.Module, facts: dict[str, Any]) -> None:
    """Write the state dict of `module` with `facts` (plain JSON: experiment, step, role) in the metadata."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    with draft(path) as temporary:
        save_file(state, temporary, metadata=facts_text(facts))


def facts_text(facts: dict[str, Any]) -> dict[str, str]:
    """Facts as the metadata of a safetensors file."""
    return {_KEY: json.dumps(facts)}


def read_facts(path: Path, kind: Any = dict[str, Any]) -> dict[str, Any]:
    """Metadata of a weights file: experiment, step, role. `kind`: type that they must fit. Raises UserError if it is
    missing, damaged, or not one of ours."""
    if not path.is_file():
        raise UserError(f"There is no weights file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}). Was it copied completely?") from None
    if _KEY not in metadata:
        raise UserError(
            f"{path} has no record of its experiment: it was not written by dualdistill. Expected the "
            "student.safetensors or teacher.safetensors of a run's checkpoint."
        )
    return decode_json(metadata[_KEY], kind, f"The record in {path}")


def load_weights(module: nn.Module, path: Path) -> dict[str, Any]:
    """Load a weights file into `module` strictly; returns its facts.

    Raises:
        UserError: as `read_facts`, and with a list of differences if the weights are of another model.
        DivergedError: for weights that are not finite; nothing is loaded.
    """
    facts = read_facts(path)
    state = read_tensors(path)
    if problems := differences(module.state_dict(), state):
        raise UserError(
            f"{path} holds the weights of another model ({facts.get('recipe', 'unknown recipe')}, "
            f"{facts.get('role', 'unknown role')}); nothing was loaded. It differs in:{listing(problems, most=12)}"
        )
    remedy = "take an earlier checkpoint (--checkpoint step_…), or train again with a lower training.optimiser."
    require_finite(state, path, remedy + "learning_rate or clip_norm")
    module.load_state_dict(state)
    return facts


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises UserError for a file that cannot be read."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}). Was it copied completely?") from None


def differences(expected: dict[str, Tensor], came: dict[str, Tensor]) -> list[str]:
    """A line for each key that is missing, unexpected, or of another shape."""
    lines = [f"missing: {name} {tuple(expected[name].shape)}" for name in expected if name not in came]
    lines += [f"unexpected: {name} {tuple(came[name].shape)}" for name in came if name not in expected]
    lines += [
        f"shape of {name}: expected {tuple(expected[name].shape)}, came {tuple(came[name].shape)}"
        for name in expected
        if name in came and expected[name].shape != came[name].shape
    ]
    return lines


def listing(lines: list[str], most: int) -> str:
    """Lines set below a message, the rest counted."""
    more = f"\n  … and {len(lines) - most} more" if len(lines) > most else ""
    return "".join(f"\n  {line}" for line in lines[:most]) + more


def fingerprint(path: Path) -> str:
    """SHA-256 of a file; raises UserError for a file that cannot be read."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {problem(error)}.") from None
    with file:
        return hashlib.file_digest(file, "sha256").hexdigest()
