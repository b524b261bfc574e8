"""A full disk: a message with what to free; nothing older is lost, and the same command goes on once there is room.

On a size-limited tmpfs where this process may mount one, else with the same error raised by the one helper that writes.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dualdistill import files
from dualdistill.train.state import Checkpoints
from tests.robust.outcome import Ending, run_command
from tests.robust.places import STEP, STUDENT, TEACHER, Places, sets


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    made = Places(tmp_path_factory.mktemp("disk"))
    made.prepare()
    return made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = os.geteuid() == 0 and not _mount(path, "64m")
    yield path
    if mounted:
        subprocess.run(["umount", "-l", str(path)], check=False)


def _mount(path: Path, size: str) -> int:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    return subprocess.run(command, check=False, capture_output=True).returncode


@contextmanager
def full(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Context in which the disk has no room; without a mount of its own, writes below it fail as if it were."""
    with monkeypatch.context() as patch:
        if os.path.ismount(disk):
            ballast = disk / "ballast"
            with ballast.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(1 << 12))
                except OSError:
                    pass
            yield
            ballast.unlink()
            return

        def refuse(path: Path, really: Callable[[Path], None] = files.synchronise) -> None:
            if path.is_relative_to(disk):
                raise OSError(28, "No space left on device")
            really(path)

        patch.setattr(files, "synchronise", refuse)
        patch.setattr(files, "disk_usage", lambda path: shutil.disk_usage(path)._replace(free=0))
        patch.setattr("dualdistill.train.state.synchronise", refuse)
        yield


def refused(ending: Ending) -> None:
    assert ending.code == 2, ending.text
    assert "Traceback" not in ending.text
    assert "Free " in ending.text, ending.text


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "ballast"}


ESTIMATED = ("export", "prepare", "world")
"""Verbs that compare what they will write with the disk before they do."""


@pytest.mark.parametrize("verb", ["evaluate", "export", "convert", "compare", "recipes", "predict", "prepare", "world"])
def test_a_verb_on_a_full_disk_names_what_to_free_and_works_afterwards(
    places: Places, disk: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    run, out = places.run(), disk / "out"
    export = ["export", str(run), "--format", "torch", "--data", str(places.root())]
    command = {
        "evaluate": ["evaluate", str(run), "--workers", "0", "--out", str(out)],
        "export": [*export, "--out", str(out)],
        "convert": ["recipes", "show", "synthetic/student", "--json", str(out / "a.json")],
        "compare": ["compare", str(run), "--html", str(out / "table.html")],
        "recipes": ["recipes", "list", "--json", str(out / "list.json")],
        "predict": ["predict", str(run), "--picture", str(out / "boxes.png")],
        "prepare": ["data", "prepare", str(places.root())],
        "world": ["data", "make-synthetic", str(out), "--size", "tiny", "--workers", "1"],
    }[verb]
    if verb == "prepare":
        monkeypatch.setenv("DUALDISTILL_CACHE", str(out))
        if not os.path.ismount(disk):
            pytest.skip("the index is written by another library: needs a disk of its own")
    if verb == "world":
        pytest.importorskip("embreex")
    if verb == "convert":
        out.mkdir()
        (out / "a.json").write_text("old")
    with full(disk, monkeypatch):
        before = content(disk)
        refused(run_command(command))
        assert content(disk) == before
        if verb in ESTIMATED:  # that was the estimate; now let it be wrong
            with monkeypatch.context() as patch:
                patch.setattr(files, "disk_usage", lambda path: shutil.disk_usage("/")._replace(free=1 << 40))
                refused(run_command(command))
        assert verb == "world" or content(disk) == before  # the same command makes the rest of a world
    ending = run_command(command, limit=300)
    assert ending.code == 0, ending.text


def train(places: Places, out: Path, *more: str) -> list[str]:
    argv = ["train", "synthetic/student", "--data", str(places.base / "root"), "--out", str(out), "--workers", "0"]
    return [*argv, *sets(*STUDENT, *STEP, "training.steps=3", "training.save_every=1", *more)]


def test_a_training_whose_disk_fills_up_keeps_its_checkpoints_and_goes_on(
    places: Places, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Checkpoints.save

    def save(self: Checkpoints, state: object, *, best: bool = False) -> None:
        if state.step < 2:  # type: ignore[attr-defined]
            really(self, state, best=best)  # type: ignore[arg-type]
            return
        with full(disk, monkeypatch):
            really(self, state, best=best)  # type: ignore[arg-type]

    monkeypatch.setattr(Checkpoints, "save", save)
    ending = run_command(train(places, disk / "runs"), limit=300)
    monkeypatch.setattr(Checkpoints, "save", really)
    assert ending.code == 2, ending.text
    (run,) = (disk / "runs").glob("*/*/*")
    assert f"dualdistill resume {run}" in ending.text.replace("\n", "")
    assert [path.name for path in (run / "checkpoints").iterdir() if path.is_dir()] == ["step_000001"]
    (disk / "ballast").unlink(missing_ok=True)
    assert run_command(["resume", str(run), "--workers", "0"], limit=300).code == 0


def test_a_training_whose_checkpoints_will_not_fit_is_refused_before_its_first_step(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "disk_usage", lambda path: shutil.disk_usage(path)._replace(free=100_000))
    ending = run_command(train(places, tmp_path / "runs"), limit=300)
    refused(ending)
    assert "checkpoints" in ending.text
    assert not list(tmp_path.rglob("step_*"))


def test_a_teacher_cache_that_does_not_fit_is_refused_and_filled_later(
    places: Places, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["train", "synthetic/dualdistill-centerpoint", "--data", str(places.base / "root"), "--workers", "0"]
    argv += [
        "--out",
        str(places.new()),
        "--teacher",
        str(places.run("teacher-centerpoint")),
        "--teacher-cache",
        str(disk / "c"),
    ]
    flat = ("rotation=0,0", "scale=1,1", "translation_sd=0")
    argv += sets(
        *STUDENT, *TEACHER, *STEP, *(f"data.bev_augmentation.{each}" for each in flat), "data.random_sweeps=false"
    )
    with full(disk, monkeypatch):
        refused(run_command(argv, limit=300))
    monkeypatch.undo()
    subprocess.run(["mount", "-o", "remount,size=512m", str(disk)], check=False, capture_output=True)
    assert run_command(argv, limit=300).code == 0
