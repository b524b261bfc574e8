"""A run on disk: what it was, how it went, what came out (layout: docs/runs.md)."""

import fcntl
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict, get_args

import torch
from msgspec import Meta

import dualdistill
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Role
from dualdistill.files import append_to, read_json, write_atomically, writing

_STEP = re.compile(r"step_[0-9]{1,18}")
Seed = Annotated[int, Meta(ge=0, lt=2**32)]


class DataRecord(TypedDict):
    """The data of a training."""

    root: str
    version: str
    split: str
    tables: NotRequired[dict[str, str]]
    """Digest of each part of the index."""


class WeightsRecord(TypedDict):
    """Weights that a training learns from."""

    path: str
    sha256: str
    recipe: str
    step: int | None
    score: dict[str, float] | None


class RunRecord(TypedDict):
    """experiment.json."""

    recipe: str
    overrides: list[str]
    seed: Seed
    data: DataRecord
    teacher: WeightsRecord | None
    label_encoder: WeightsRecord | None
    teacher_cache: str | None
    log: list[str]
    experiment: dict[str, Any]


class WeightsFacts(TypedDict):
    """Metadata of the weights of a training, or of converted ones (which have no data)."""

    role: str
    recipe: str
    step: int | None
    seed: Seed
    data: DataRecord | None
    teacher: NotRequired[WeightsRecord | None]
    experiment: dict[str, Any]


class Scores(TypedDict):
    """metrics.json of an evaluation, as far as others need it."""

    mean_ap: float
    nd_score: float
    tp_errors: NotRequired[dict[str, float]]
    mean_dist_aps: NotRequired[dict[str, float]]


def read_scores(path: Path) -> dict[str, Any]:
    """The scores of an evaluation. Raises UserError for a file that is damaged."""
    return read_json(path, Scores, "scores of an evaluation: `dualdistill evaluate` writes them")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one run; nothing is created before it is written."""

    path: Path

    @classmethod
    def create(cls, out: Path, recipe: str, seed: int) -> "RunFolder":
        """A new folder `out/<recipe>/<date-time>-seed<k>`; a second one in the same second gets a suffix."""
        base = out / recipe / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-seed{seed}"
        with writing(base):
            base.parent.mkdir(parents=True, exist_ok=True)
            path, number = base, 1
            while True:
                with suppress(FileExistsError):  # another process was faster
                    path.mkdir()
                    return cls(path)
                number += 1
                path = base.with_name(f"{base.name}-{number}")

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run. Raises UserError if there is none at `path`."""
        if (path / "experiment.json").is_file():
            return cls(path)
        where = "Give the folder that `dualdistill train` printed, runs/<recipe>/<date-time>-seed<k>."
        raise UserError(f"{path} is not a run: it has no experiment.json. {where}")

    @property
    def experiment(self) -> dict[str, Any]:
        return read_json(self.path / "experiment.json", RunRecord, "the record of a run, by `dualdistill train`")

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, name: str = "last") -> Path:
        """The folder of a checkpoint: "last", "best" or "step_000400". Raises UserError if the run has no such
        checkpoint."""
        known = [path.name for path in reversed(self.all_checkpoints())]
        folder = self.pointed(name) or self.checkpoints / name
        if folder.name not in known:
            known += [pointer for pointer in ("last", "best") if self.pointed(pointer)]
            raise UserError(f"{self.path} has no checkpoint {name!r}; it has: {', '.join(known) or 'none yet'}.")
        return self.checkpoints.resolve() / folder.name  # which may be a link to elsewhere

    def weights(self, checkpoint: str = "last") -> Path:
        """The trained network's file in a checkpoint. Raises UserError if the run has no such checkpoint."""
        folder = self.checkpoint(checkpoint)
        files = [folder / f"{role}.safetensors" for role in get_args(Role)]
        for file in files:
            if file.is_file():
                return file
        raise UserError(f"{folder} holds none of {', '.join(file.name for file in files)}: take another checkpoint.")

    def all_checkpoints(self) -> list[Path]:
        """Folders of all checkpoints, the newest first."""
        found = [path for path in self.checkpoints.glob("step_*") if _STEP.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=step_of, reverse=True)

    def newest(self) -> Path | None:
        """The newest checkpoint; None where there is none yet."""
        return next(iter(self.all_checkpoints()), None)

    def point(self, name: str, checkpoint: str) -> None:
        """Let "last" or "best" name a checkpoint: a text file, replaced at once."""
        write_atomically(self.checkpoints / name, checkpoint + "\n")

    def pointed(self, name: str) -> Path | None:
        """The checkpoint that "last" or "best" names; None where the file or the checkpoint is missing."""
        file = self.checkpoints / name
        checkpoint = file.read_text(errors="replace").strip() if file.is_file() else ""
        folder = self.checkpoints / checkpoint
        return folder if _STEP.fullmatch(checkpoint) and folder.is_dir() else None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Context in which no other process trains this run. Raises UserError if one does."""
        path = self.path / ".lock"
        with ExitStack() as stack:
            with writing(path):  # and not what follows
                file = stack.enter_context(path.open("a+"))
                try:
                    # A lock of this process alone: loader processes that outlive a killed one do not hold it.
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    file.seek(0)
                    holder = f"another process ({file.read().strip() or 'unknown'})"
                    raise UserError(f"{self.path} is being trained by {holder}: wait or stop it.") from None
                file.truncate(0)
                file.write(f"process {os.getpid()} on {platform.node()}")
                file.flush()
            yield

    def evaluation(self, checkpoint: str) -> Path:
        return self.path / "evaluation" / checkpoint

    def log(self, line: str) -> None:
        path = self.path / "log.txt"
        with writing(path), append_to(path) as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n")


def step_name(step: int) -> str:
    """Name of the checkpoint folder of a step."""
    return f"step_{step:06d}"


def step_of(checkpoint: Path) -> int:
    """Number of steps done at a checkpoint folder such as `step_000400`."""
    return int(checkpoint.name.removeprefix("step_"))


def environment() -> dict[str, Any]:
    """Versions and machine, so that a number can be traced to what made it. "commit" is that of the checkout this
    package runs from; None where it is not one."""
    packages = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "safetensors")
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    commit = None
    with suppress(OSError, subprocess.TimeoutExpired):
        commit = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False).stdout.strip() or None
    return {
        "dualdistill": dualdistill.__version__,
        "commit": commit,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in packages},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }
