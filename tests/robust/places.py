"""Copies of a small data root and of trained runs, for cases to damage."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tests.commands.conftest import TINY_STUDENT as STUDENT
from tests.commands.conftest import TINY_TEACHER as TEACHER
from tests.data.tiny_root import write_root
from tests.robust.outcome import run_command

STEP = ("training.steps=1", "training.batch_size=1", "training.log_every=1")


def sets(*assignments: str) -> list[str]:
    """Options that change settings."""
    return [part for each in assignments for part in ("--set", each)]


@dataclass
class Places:
    """A root with two scenes, and runs of one step trained on it; every call gives a copy of its own."""

    base: Path
    _numbers: Any = field(default_factory=count)

    def prepare(self) -> None:
        """Make the originals.

        Raises:
            RuntimeError: if a training fails.
        """
        write_root(self.base / "root", {"scene-0061": 3, "scene-0103": 3}, sweeps=False)
        for recipe, changes in (("synthetic/student", STUDENT), ("synthetic/teacher-centerpoint", TEACHER)):
            out = self.base / "runs" / recipe.split("/")[1]
            argv = ["train", recipe, "--data", str(self.base / "root"), "--out", str(out), "--workers", "0"]
            outcome = run_command([*argv, *sets(*changes, *STEP)], limit=600)
            if outcome.code:
                raise RuntimeError(outcome.text)
            run_command(["evaluate", str(self.original(recipe.split("/")[1])), "--workers", "0"], limit=600)

    def original(self, role: str) -> Path:
        """The run folder of `student` or `teacher-centerpoint`."""
        (path,) = (self.base / "runs" / role).glob("*/*/*")
        return path

    def new(self) -> Path:
        """An empty folder."""
        path = self.base / f"case-{next(self._numbers)}"
        path.mkdir()
        return path

    def clear(self) -> None:
        """Remove all copies."""
        for path in self.base.glob("case-*"):
            shutil.rmtree(path, ignore_errors=True)

    def root(self) -> Path:
        """A copy of the data root."""
        return Path(shutil.copytree(self.base / "root", self.new() / "root"))

    def run(self, role: str = "student", *, finished: bool = True) -> Path:
        """A copy of a run folder."""
        path = Path(shutil.copytree(self.original(role), self.new() / "run"))
        if not finished:
            (path / "finished.json").unlink()
        return path

    def weights(self, run: Path) -> Path:
        """The weights file of a run."""
        (path,) = (
            path for path in (run / "checkpoints" / "step_000001").glob("*.safetensors") if path.stem != "distiller"
        )
        return path


def edit_table(root: Path, table: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Let `change` edit the records of a table."""
    path = root / "v1.0-mini" / f"{table}.json"
    records = json.loads(path.read_text())
    change(records)
    path.write_text(json.dumps(records))
