"""A run on disk: what it was, how it went, what came out (layout: docs/runs.md)."""

import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
        base.parent.mkdir(parents=True, exist_ok=True)
        path, count = base, 2
        while True:
            try:
                path.mkdir()  # fails where another process was faster
            except FileExistsError:
                path, count = base.with_name(f"{base.name}-{count}"), count + 1
            else:
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
        folder = self.pointed(name) or self.checkpoints / name
        if not folder.is_dir():
            known = [path.name for path in reversed(self.all_checkpoints())]
            known += [pointer for pointer in ("last", "best") if self.pointed(pointer)]
            raise UserError(f"{self.path} has no checkpoint {name!r}; it has: {', '.join(known) or 'none yet'}.")
        return folder.resolve()

    def all_checkpoints(self) -> list[Path]:
        """Folders of all checkpoints, the newest first."""
        return sorted(self.checkpoints.glob("step_*"), key=step_of, reverse=True)

    def newest(self) -> Path | None:
        """The newest checkpoint; None where there is none yet."""
        return next(iter(self.all_checkpoints()), None)

    def point(self, name: str, checkpoint: str) -> None:
        """Let "last" or "best" name a checkpoint: a text file, replaced at once."""
        write_atomically(self.checkpoints / name, checkpoint + "\n")

    def pointed(self, name: str) -> Path | None:
        """The checkpoint that "last" or "best" names; None where the file or the checkpoint is missing."""
        file = self.checkpoints / name
        folder = self.checkpoints / Path(file.read_text().strip()).name if file.is_file() else None
        return folder if folder is not None and folder.is_dir() else None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Context in which no other process trains this run.

        Raises:
            UserError: if one does.
        """
        with (self.path / ".lock").open("a+") as file:
            try:
                # A lock of this process alone: loader processes that outlive a killed one do not hold it.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise UserError(
                    f"{self.path} is being trained by another process ({holder}): wait or stop it."
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            yield

    def evaluation(self, checkpoint: str) -> Path:
        return self.path / "evaluation" / checkpoint

    def write_json(self, name: str, value: Any) -> None:
        write_atomically(self.path / name, json.dumps(value, indent=2) + "\n")

    def log(self, line: str) -> None:
        with (self.path / "log.txt").open("a") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n")


def step_name(step: int) -> str:
    """Name of the checkpoint folder of a step."""
    return f"step_{step:06d}"


def step_of(checkpoint: Path) -> int:
    """Number of steps done at a checkpoint folder such as `step_000400`."""
    return int(checkpoint.resolve().name.removeprefix("step_"))


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def environment() -> dict[str, Any]:
    """Versions and machine, so that a number can be traced to what made it."""
    packages = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "safetensors")
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
