"""The official devkit, where it is installed: it needs a Python environment of its own (numpy < 2)."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

VARIABLE = "DUALDISTILL_DEVKIT_PYTHON"

NOTE = f"nuscenes-devkit absent: set {VARIABLE} to a Python that has nuscenes-devkit 1.2.0"
"""Part of the name of rows whose reference had to be another."""


def devkit_python() -> str | None:
    """The interpreter of an environment with nuscenes-devkit: `$DUALDISTILL_DEVKIT_PYTHON`, or the one `make test`
    makes in the current folder; None without."""
    chosen = os.environ.get(VARIABLE)
    beside = Path(".venv/devkit/bin/python")
    return chosen or (str(beside.absolute()) if beside.is_file() else None)


def run_devkit(python: str, script: str, *arguments: str) -> dict[str, Any]:
    """Run a script of this folder; returns the JSON it writes to the path that is its last argument.

    Raises:
        subprocess.CalledProcessError: if it fails, with its `stderr`.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        command = [python, str(Path(__file__).with_name(script)), *arguments, str(out)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(out.read_text())
