"""How far long work is: a bar on a terminal, plain lines in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@runtime_checkable
class Say(Protocol):
    """Told how much is done, of how much, and a word about it."""

    def __call__(self, done: int, total: int, line: str = "") -> None: ...


@contextmanager
def progress(console: Console, title: str, *, before: int = 0, every_seconds: float = 15.0) -> Iterator[Say]:
    """Show the progress of one long piece of work while the block runs.

    Args:
        before: How much had been done when it began: time is spent on the rest alone.
    """
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        )
        times = (
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[line]}"),
        )
        with Progress(*columns, *times, console=console) as bar:
            task = bar.add_task(title, total=max(before, 1), completed=before, line="")

            def show(done: int, total: int, line: str = "") -> None:
                bar.update(task, completed=done, total=total, line=line)

            yield show
        return
    began = told = time.monotonic()

    def tell(done: int, total: int, line: str = "") -> None:
        nonlocal told
        now = time.monotonic()
        if done < total and now - told < every_seconds:
            return
        told = now
        left = (now - began) / max(done - before, 1) * (total - done)
        console.print(
            f"{title}: {done}/{total}, {now - began:.0f} s, about {left:.0f} s left" + (f", {line}" if line else "")
        )

    yield tell
