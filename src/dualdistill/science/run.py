"""Run a study: jobs side by side, each in a process of its own; what is recorded is skipped."""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.markup import escape

from dualdistill.commands.data import make_virtual
from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import UserError
from dualdistill.report.progress import progress
from dualdistill.science.job import BUSY
from dualdistill.science.jobs import Job, all_jobs, write_job
from dualdistill.science.record import read_results
from dualdistill.science.shared import adopt, keep
from dualdistill.science.study import Study
from dualdistill.synthetic import make_synthetic

_TOLD_EVERY = 60.0
"""Seconds between two lines of progress."""
_PATIENCE = 120.0
"""Seconds an interrupted job has to save its checkpoint."""


def run_study(
    console: Console,
    study: Study,
    *,
    data: Path,
    out: Path,
    results: Path,
    seeds: Iterable[int] | None = None,
    only: Iterable[str] = (),
    workers: int = 2,
    threads: int = 1,
    limit_minutes: float | None = None,
    plan: bool = False,
) -> None:
    """Train, evaluate and record what is not recorded yet; prints how far it is.

    Args:
        data: Root of the world; made if it is not there.
        out: Where run folders go; needed to go on with interrupted runs.
        results: Folder of the study's JSON files.
        seeds: Of the students; None takes the study's.
        only: Keys of tables or rows; nothing takes all.
        workers: Jobs side by side.
        threads: Of each job.
        limit_minutes: After so long, running jobs are interrupted (they save checkpoints) and nothing more is started.
        plan: Only print what is left to do.

    Raises:
        UserError: before anything runs, for a result that belongs to other settings, and for unknown keys.
        SystemExit: 1 if a job failed, 130 if the user interrupted.
    """
    study, absent = study.present()
    if absent:
        console.print(f"Not among the recipes, left out: {', '.join(absent)}")
    data, out, results = data.resolve(), out.resolve(), results.resolve()
    jobs = all_jobs(study, data=data, out=out, results=results, seeds=seeds or study.seeds)
    for job, weights in [] if plan else adopt(jobs):
        console.print(f"weights of {job.name} taken from {weights}")
    todo = what_is_left(study, jobs, only)
    console.print(f"[bold]{study.name}[/]: {len(jobs)} runs in all, {len(todo)} to do -> {results}")
    if plan:
        for job in todo:
            again = ", goes on" if job.run else ""
            console.print(f"    {job.name}{again}")
    if plan or not todo:
        return
    make_world(console, study, data, todo)
    deadline = None if limit_minutes is None else time.monotonic() + 60 * limit_minutes
    queue = _Queue(console=console, todo=todo, times=_Times.known(results), workers=workers, threads=threads)
    queue.run(deadline)


def keep_shared(console: Console, study: Study, *, data: Path, out: Path, results: Path) -> None:
    """Keep the weights that the study's students share beside its results.

    Raises:
        UserError: if none of them is trained below `out`.
    """
    study, _ = study.present()
    written = keep(
        all_jobs(study, data=data.resolve(), out=out.resolve(), results=results.resolve(), seeds=study.seeds)
    )
    if not written:
        raise UserError(f"{out} has no finished run of {study.name} that others learn from: `science run` makes them.")
    for path in written:
        console.print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


def what_is_left(study: Study, jobs: list[Job], only: Iterable[str] = ()) -> list[Job]:
    """Jobs that are asked for and not recorded, and those they need whose weights are not there, in order."""
    wanted = _wanted(study, only)
    by_folder = {job.folder: job for job in jobs}
    left = {job.folder for job in jobs if (job.role != "student" or job.row in wanted) and not job.recorded}
    if only:  # teachers are wanted where something needs them
        needed = {folder for job in jobs if job.folder in left and job.role == "student" for folder in job.waits_for}
        left = {folder for folder in left if by_folder[folder].role == "student" or folder in needed}
    waiting = list(left)
    while waiting:
        for folder in by_folder[waiting.pop()].waits_for:
            if folder not in left and not by_folder[folder].trained:
                left.add(folder)
                waiting.append(folder)
    return [job for job in jobs if job.folder in left]


def _wanted(study: Study, only: Iterable[str]) -> set[str]:
    rows = study.rows()
    tables = {table.key: {row.key for row in table.rows} for table in study.tables}
    wanted: set[str] = set()
    for key in only:
        if key not in rows and key not in tables:
            raise UserError(
                f"--only {key}: no table or row of {study.name}. Tables: {', '.join(tables)}; rows: {', '.join(rows)}."
            )
        wanted |= tables.get(key, {key})
    return wanted or set(rows)


def make_world(console: Console, study: Study, data: Path, jobs: list[Job]) -> None:
    """Make the world and its index, and virtual points where a recipe wants them; what is there is kept."""
    with progress(console, f"making the world {study.world.name}") as say:
        make_synthetic(data, study.world, workers=os.cpu_count() or 1, progress=say)
    NuscenesIndex.open(data)
    if any(job.identity["experiment"]["data"]["virtual_points"] is not None for job in jobs):
        make_virtual(console, data, None, "synthetic", None)


@dataclass
class _Times:
    """How long jobs take, by role."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def known(cls, results: Path) -> "_Times":
        times = cls()
        for result in read_results(results):
            times.add(result.role, result.wall_seconds)
        return times

    def add(self, role: str, seconds: float) -> None:
        self.seconds.setdefault(role, []).append(seconds)

    def expected(self, role: str) -> float | None:
        every = self.seconds.get(role) or self.seconds.get("student") or self.seconds.get("teacher")
        return statistics.median(every) if every else None


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    began: float


class _Queue:
    """The jobs that are left, started as soon as what they need is done and a worker is free."""

    def __init__(self, *, console: Console, todo: list[Job], times: _Times, workers: int, threads: int):
        self.console, self.times, self.workers, self.threads = console, times, workers, threads
        self.waiting = list(todo)
        self.total = len(todo)
        self.running: list[_Running] = []
        self.done = 0
        self.failed: list[Job] = []
        self._began = self._told = time.monotonic()

    def run(self, deadline: float | None) -> None:
        heard = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
        previous = {number: signal.signal(number, _interrupt) for number in heard}
        try:
            while self.waiting or self.running:
                if deadline is not None and time.monotonic() > deadline:
                    self.console.print("Time is over.")
                    self._stop()
                    break
                self._start_what_can()
                if not self.running:
                    break
                time.sleep(0.2)
                self._collect()
                self._tell()
        except KeyboardInterrupt:
            with suppress(KeyboardInterrupt):  # a second one waits for nobody
                self._stop()
            self.console.print("Interrupted. Run the same command again to go on.")
            raise SystemExit(130) from None
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        self._conclude()

    def _start_what_can(self) -> None:
        blocked = {job.folder for job in self.waiting} | {one.job.folder for one in self.running}
        blocked |= {job.folder for job in self.failed}
        for job in [job for job in self.waiting if not job.waits_for & blocked]:
            if len(self.running) >= self.workers:
                return
            self.waiting.remove(job)
            self.running.append(_Running(job, start(job, self.threads), time.monotonic()))
            self.console.print(f"started  {job.name}")

    def _collect(self) -> None:
        for one in list(self.running):
            code = one.process.poll()
            if code is None:
                continue
            self.running.remove(one)
            took = time.monotonic() - one.began
            if code == 0:
                self.done += 1
                self.times.add(one.job.role, took)
                self.console.print(f"finished {one.job.name} after {_duration(took)}; {self._left()}")
                continue
            self.failed.append(one.job)
            why = "another process works on it" if code == BUSY else f"exit code {code}; {log_of(one.job)} ends with:"
            self.console.print(f"[bold red]failed[/]   {one.job.name}: {escape(why)}")
            if code != BUSY:
                self.console.print(escape("\n".join("    " + line for line in _tail(one.job, 6))))

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told < _TOLD_EVERY:
            return
        self._told = now
        self.console.print(f"{self.done} of {self.total} done, {self._left()}")
        for one in self.running:
            self.console.print(escape(f"    {one.job.name}: {' '.join(_tail(one.job, 1))}"))

    def _left(self) -> str:
        """In words, from how long such jobs took before."""
        now = time.monotonic()
        every: list[float | None] = [self.times.expected(job.role) for job in self.waiting]
        for one in self.running:
            expected = self.times.expected(one.job.role)
            every.append(None if expected is None else max(0.0, expected - (now - one.began)))
        if not every:
            return "nothing is left"
        known = [seconds for seconds in every if seconds is not None]
        if not known:
            return f"{len(every)} to go"
        return f"{len(every)} to go, about {_duration(statistics.fmean(known) * len(every) / self.workers)}"

    def _stop(self) -> None:
        """Let running jobs save their checkpoints and end."""
        for one in self.running:
            one.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _PATIENCE
        for one in self.running:
            try:
                one.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
            self.console.print(f"stopped  {one.job.name}: {escape(' '.join(_tail(one.job, 1)))}")
        self.waiting += [one.job for one in self.running]
        self.running = []

    def _conclude(self) -> None:
        self.console.print(
            f"{self.done} of {self.total} done in {_duration(time.monotonic() - self._began)}"
            + (f", {len(self.waiting)} not" if self.waiting else "")
            + (f", {len(self.failed)} failed: {', '.join(job.name for job in self.failed)}" if self.failed else "")
        )
        if self.failed:
            raise SystemExit(1)


def start(job: Job, threads: int) -> subprocess.Popen[bytes]:
    """A process for a job. It gets no Ctrl-C of the terminal's: who started it passes one on, once."""
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_job(folder / "job.json", job)
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    with log_of(job).open("ab") as log:
        return spawn(
            [sys.executable, "-m", "dualdistill.science.job", str(folder)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | limits | {"PYTHONUNBUFFERED": "1"},
        )


def spawn(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """A process out of the terminal's reach that hears SIGINT, even where this one, a shell's background job, is deaf
    to it: being deaf is inherited, having a handler is not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
    finally:
        signal.signal(signal.SIGINT, before)


def log_of(job: Job) -> Path:
    return Path(job.folder) / "log.txt"


def _tail(job: Job, lines: int) -> list[str]:
    """The end of a job's log."""
    path = log_of(job)
    if not path.is_file():
        return []
    text = path.read_bytes()[-4000:].decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()][-lines:]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
