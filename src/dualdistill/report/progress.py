"""Progress of long work: a bar on a terminal, plain lines in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EVERY_SECONDS = 15.0
"""Shortest time between two lines of a log."""


@runtime_checkable
class Report(Protocol):
    """Callback with the amount done, the total amount, and a remark."""

    def __call__(self, done: int, total: int, line: str = "") -> None: ...


@contextmanager
def progress(console: Console, title: str, *, before: int = 0) -> Iterator[Report]:
    """Show the progress of one long piece of work while the block runs. `before`: amount done before the block, which
    the estimate of the remaining time leaves out."""
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[line]}", style="dim", markup=False),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=max(before, 1), completed=before, line="")

            def update(done: int, total: int, line: str = "") -> None:
                bar.update(task, completed=done, total=total, line=line)

            yield update
        return
    began = printed = time.monotonic()

    def log(done: int, total: int, line: str = "") -> None:
        nonlocal printed
        now = time.monotonic()
        if done < total and now - printed < EVERY_SECONDS:
            return
        printed = now
        left = (now - began) / max(done - before, 1) * (total - done)
        console.print(
            f"{title}: {done}/{total}, {now - began:.0f} s, about {left:.0f} s left" + (f", {line}" if line else "")
        )

    yield log
