"""`bench`: benchmarks one after the other, each in a process of its own, results kept as they come."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from benchmarks.catalogue import BENCHMARKS, Benchmark
from benchmarks.outcome import PlainRow, page, read_rows, replaced, row_of, tables, verdict, write_rows
from dualdistill.errors import UserError
from dualdistill.train.run_folder import write_atomically

LIMIT_SECONDS = 1800.0
"""A benchmark that takes longer is ended, and counts as failed."""


def list_benchmarks(console: Console, benchmarks: Mapping[str, Benchmark] = BENCHMARKS) -> list[dict[str, Any]]:
    """Print what can be measured; returns it as JSON values."""
    table = RichTable("benchmark", "compares", "target", box=None, header_style="bold", pad_edge=False)
    for name, benchmark in benchmarks.items():
        table.add_row(name, escape(benchmark.summary), escape(benchmark.target))
    console.print(table)
    console.print("Run some: `dualdistill bench NAME …`, or `--all`; `--quick` for a glance.")
    return [
        {"name": name, "summary": benchmark.summary, "target": benchmark.target}
        for name, benchmark in benchmarks.items()
    ]


def run_benchmarks(
    console: Console,
    names: Sequence[str],
    *,
    quick: bool = False,
    json_file: Path | None = None,
    page_file: Path | None = None,
    resume: bool = False,
) -> list[PlainRow]:
    """Measure, print, keep; returns the rows.

    Args:
        json_file: Gets the rows of this run, one a formulation, after every benchmark.
        page_file: A Markdown page; the rows it is made of are kept beside it (`.json`), those of other benchmarks stay.
        resume: Leave out what one of these files has at this size already.

    Raises:
        UserError: for an unknown name.
        SystemExit: 1 if a benchmark failed; the others have been measured.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise UserError(f"There is no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS) or 'none'}.")
    store = page_file.with_suffix(".json") if page_file is not None else None
    before = [row for path in (json_file, store) if path is not None and resume for row in read_rows(path)]
    rows: list[PlainRow] = []
    failed = []
    for name in names:
        new = [row for row in before if row["benchmark"] == name and row["quick"] == quick]
        if new:
            console.print(f"{name}: there already")
        else:
            began = time.monotonic()
            new = _measured(console, name, quick)
            console.print(f"[dim]{name}: {time.monotonic() - began:.0f} s[/]")
        if not new:
            failed.append(name)
            continue
        show(console, BENCHMARKS[name], new)
        rows = replaced(rows, new, list(BENCHMARKS))
        if json_file is not None:
            write_rows(json_file, rows)
        if page_file is not None and store is not None:
            kept = replaced(read_rows(store), new, list(BENCHMARKS))
            write_rows(store, kept)
            write_atomically(page_file, page(BENCHMARKS, kept, page_file.with_suffix("")))
    if failed:
        console.print(f"[bold red]failed:[/] {', '.join(failed)}")
        raise SystemExit(1)
    return rows


def show(console: Console, benchmark: Benchmark, rows: Sequence[PlainRow]) -> None:
    """Tables of one benchmark, and its target."""
    for table in tables(rows):
        console.print(table.to_rich(console.width))
    said = verdict(benchmark, rows)
    colour = {"met": "green", "missed": "red"}.get(said, "dim")
    console.print(f"target: {escape(benchmark.target or 'none')}  [{colour}]{said}[/]\n")


def _measured(console: Console, name: str, quick: bool) -> list[PlainRow]:
    """Rows from a process of their own: its memory peaks are its own, and its failure is no one else's. None if so."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks.child", name, "quick" if quick else "full", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
            said = (done.stderr or done.stdout).splitlines()
        except subprocess.TimeoutExpired:
            said = [f"not done after {LIMIT_SECONDS:.0f} s"]
        rows = read_rows(path)
    if not rows:
        console.print(f"[bold red]{name} failed[/]")
        console.print(escape("\n".join("    " + line for line in said[-12:])))
    for row in map(row_of, rows):
        if row.difference == float("inf"):
            console.print(f"[bold red]{escape(row.name)} gives a result of another form than the reference[/]")
    return rows
