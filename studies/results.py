"""The results of a study: one JSON file, one line a run, merged run by run."""

import fcntl
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dualdistill import zoo

FOLDER = Path(__file__).parent / "results"
WEIGHTS = zoo.FOLDER
"""Half-precision weights that all runs of the studies share; they ship with the package."""


def read(path: Path) -> dict[str, Any]:
    """Parts "world", "networks" and "runs", empty where there is no file yet."""
    if not path.is_file():
        return {"world": {}, "networks": {}, "runs": {}}
    return json.loads(path.read_text())


def add(path: Path, part: str, key: str, value: Any) -> None:
    """Put one entry in the file: a reader, or a second writer, finds it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        results = read(path)
        results[part][key] = _rounded(value)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(_text(results))
        temporary.replace(path)


def _text(results: dict[str, Any]) -> str:
    parts = []
    for name, entries in results.items():
        lines = (f"  {json.dumps(key)}: {json.dumps(entries[key])}" for key in sorted(entries))
        parts.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _rounded(value: Any) -> Any:
    """Floats to six digits, far finer than what seeds differ by; NaN as null."""
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
