"""One job in a process of its own: `python -m dualdistill.science.job FOLDER`, where FOLDER holds job.json.

Safe to be killed at any moment and started again: training goes on from its last checkpoint, and the result file
appears at once and whole, last.
"""

import ctypes
import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from dualdistill.errors import UserError
from dualdistill.science.jobs import Job, needed_run, read_job
from dualdistill.train.run_folder import write_atomically

BUSY = 75
"""Exit code where another process works on the same job."""
_TICK = 10.0
"""Seconds between two notes of the clock: at most this much is not counted when a process is killed."""


def main() -> None:
    """Exit codes: 0 recorded, 2 wrong input, 130 interrupted (a checkpoint is saved), `BUSY`."""
    folder = Path(sys.argv[1])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    _end_with_parent()
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(BUSY)
        try:
            do_job(read_job(folder / "job.json"), Clock(folder))
        except UserError as error:
            print(f"Error: {error}", flush=True)
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)


def do_job(job: Job, clock: "Clock") -> None:
    """Train what is not trained, evaluate, write the result."""
    from rich.console import Console

    from dualdistill.commands.train import resume_training, start_training
    from dualdistill.science.outcome import outcome
    from dualdistill.science.record import write_result
    from dualdistill.train.loaded_detector import weights_of

    console = Console(force_terminal=False, soft_wrap=True, highlight=False)
    out = Path(job.folder)
    link_needs(job)
    run = job.run
    if run is not None and not job.trained and not (run / "checkpoints" / "last").exists():
        shutil.rmtree(run)  # stopped before its first checkpoint
        run = None
    if run is None:
        starts = [weights_of(needed_run(recipe, Path(folder)), "last") for recipe, folder in job.starts_from.items()]
        run = start_training(
            console,
            job.recipe,
            data=Path(job.data),
            out=out,
            overrides=[*job.overrides, *(f"{job.start}={path.resolve()}" for path in starts)],
            seed=job.seed,
            teacher_cache=Path(job.teacher_cache) if job.teacher_cache else None,
            workers=0,
            check=False,
        )
    elif not job.trained:
        resume_training(console, run, workers=0)
    write_result(Path(job.result), outcome(console, job, run, clock.total))


def link_needs(job: Job) -> None:
    """Let the runs this job learns from lie below its own folder, where training looks for them."""
    for recipe, folder in job.learns_from.items():
        source = needed_run(recipe, Path(folder)).resolve()
        link = Path(job.folder) / recipe / source.name
        link.parent.mkdir(parents=True, exist_ok=True)
        for old in link.parent.iterdir():
            if old.is_symlink():
                old.unlink()
        link.symlink_to(source)


class Clock:
    """Notes what this process spends, as it goes, so that a killed one is counted, too."""

    def __init__(self, folder: Path):
        self.folder = folder / "spent"
        self.folder.mkdir(exist_ok=True)
        self._file = self.folder / f"{time.time_ns()}.json"
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self.note()
        threading.Thread(target=self._tick, daemon=True).start()

    def note(self) -> None:
        times = os.times()
        cpu = times.user + times.system + times.children_user + times.children_system
        with self._lock:
            write_atomically(self._file, json.dumps({"cpu": cpu, "wall": time.monotonic() - self._began}))

    def total(self) -> tuple[float, float]:
        """CPU and wall seconds of all processes that have worked on this job until now."""
        self.note()
        notes = [json.loads(path.read_text()) for path in self.folder.glob("*.json")]
        return sum(note["cpu"] for note in notes), sum(note["wall"] for note in notes)

    def _tick(self) -> None:
        while True:
            time.sleep(_TICK)
            self.note()


def _end_with_parent() -> None:
    """Ask Linux to interrupt this process when the one that started it dies; elsewhere it goes on, which the lock
    makes harmless."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").prctl(1, signal.SIGINT)


if __name__ == "__main__":
    main()
