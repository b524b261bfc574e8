"""A run on disk: what it was, how it went, what came out (design: docs/runs.md)."""

import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import dualdistill
from dualdistill.errors import UserError


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one run; nothing is created before it is written."""

    path: Path

    @classmethod
    def create(cls, out: Path, recipe: str, seed: int) -> "RunFolder":
        """A new folder `out/<recipe>/<date-time>-seed<k>`; a second one in the same second gets a suffix."""
        base = out / recipe / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-seed{seed}"
        path, count = base, 2
        while path.exists():
            path, count = base.with_name(f"{base.name}-{count}"), count + 1
        path.mkdir(parents=True)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run.

        Raises:
            UserError: if there is none at `path`.
        """
        if not (path / "experiment.json").is_file():
            raise UserError(
                f"{path} is not a run: it has no experiment.json. Give the folder that `dualdistill train` printed, "
                "runs/<recipe>/<date-time>-seed<k>."
            )
        return cls(path)

    @property
    def experiment(self) -> dict[str, Any]:
        return json.loads((self.path / "experiment.json").read_text())

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, name: str = "last") -> Path:
        """The folder of a checkpoint: "last", "best" or "step_000400".

        Raises:
            UserError: if the run has no such checkpoint.
        """
        folder = self.checkpoints / name
        if not folder.is_dir():
            known = sorted(p.name for p in self.checkpoints.glob("*")) if self.checkpoints.is_dir() else []
            raise UserError(f"{self.path} has no checkpoint {name!r}; it has: {', '.join(known) or 'none yet'}.")
        return folder.resolve()

    def evaluation(self, checkpoint: str) -> Path:
        return self.path / "evaluation" / checkpoint

    def write_json(self, name: str, value: Any) -> None:
        write_atomically(self.path / name, json.dumps(value, indent=2) + "\n")

    def log(self, line: str) -> None:
        with (self.path / "log.txt").open("a") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n")

    def link(self, name: str, target: str) -> None:
        """Point `checkpoints/<name>` at a sibling, replacing the link at once."""
        temporary = self.checkpoints / f".{name}.new"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(self.checkpoints / name)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)


def environment() -> dict[str, Any]:
    """Versions and machine, so that a number can be traced to what made it."""
    packages = ("torch", "torchvision", "timm", "pytorch-lightning", "numpy", "safetensors")
    return {
        "dualdistill": dualdistill.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in packages},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }


def _commit() -> str | None:
    """Commit of the checkout this package runs from; None where it is not one."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
