"""`python -m benchmarks`: benchmarks one after the other, each in a process of its own, results kept as they come."""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from benchmarks.catalogue import BENCHMARKS
from benchmarks.outcome import Record, merged, page, read_records, run_records, verdict, write_records
from dualdistill.errors import UserError
from dualdistill.files import write_atomically
from dualdistill.report.timing import Row, timing_tables


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 a benchmark failed, 2 the user's input is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time and memory of every fast operator beside its reference, measured in one run, results "
        "compared. Without a name: the list.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--all", action="store_true", help="every benchmark")
    parser.add_argument("--quick", action="store_true", help="small sizes: seconds each, for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one record a variant to this file")
    parser.add_argument("--page", type=Path, metavar="FILE", help="update this Markdown page and its .json beside it")
    options = parser.parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False)
    names = list(BENCHMARKS) if options.all else options.names
    if not names:
        list_benchmarks(console)
        return 0
    try:
        failed = run_benchmarks(console, names, quick=options.quick, json_file=options.json, page_file=options.page)
    except UserError as error:
        console.print(f"[bold red]Error:[/] {escape(str(error))}")
        return 2
    return 1 if failed else 0


def list_benchmarks(console: Console) -> None:
    table = RichTable("benchmark", "compares", "target", box=None, header_style="bold", pad_edge=False)
    for name, benchmark in BENCHMARKS.items():
        table.add_row(name, escape(benchmark.summary), escape(benchmark.goal))
    console.print(table)
    console.print("Run some: `python -m benchmarks NAME …`, or `--all`; `--quick` for a first look.")


def run_benchmarks(
    console: Console,
    names: Sequence[str],
    *,
    quick: bool = False,
    json_file: Path | None = None,
    page_file: Path | None = None,
) -> list[str]:
    """Measure, print and keep; returns the names of those that failed.

    Args:
        json_file: Gets the records of this run after every benchmark.
        page_file: A Markdown page; its records are kept beside it (`.json`), where those of other benchmarks stay.

    Raises:
        UserError: for an unknown name, before anything is measured.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise UserError(f"There is no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}.")
    kept: list[Record] = []
    failed = []
    for name in names:
        began = time.monotonic()
        try:
            new = measured(name, quick)
        except Exception as error:  # one failure must not lose the other benchmarks
            cause = error.__cause__ or error  # the traceback of the process it ran in, where there is one
            console.print(
                f"[bold red]{name} failed:[/] {escape(f'{type(error).__name__}: {error}')}\n{escape(str(cause))}"
            )
            failed.append(name)
            continue
        for table in timing_tables([Row.from_json(record) for record in new]):
            console.print(table.to_rich(console.width))
        result = verdict(BENCHMARKS[name], new)
        colour = {"met": "green", "missed": "red"}.get(result, "dim")
        console.print(f"target: {escape(BENCHMARKS[name].goal or 'none')}  [{colour}]{result}[/]")
        console.print(f"[dim]{name}: {time.monotonic() - began:.0f} s[/]\n")
        kept = merged(kept, new, list(BENCHMARKS))
        if json_file is not None:
            write_records(json_file, kept)
        if page_file is not None:
            store = page_file.with_suffix(".json")
            write_records(store, merged(read_records(store), new, list(BENCHMARKS)))
            write_atomically(page_file, page(BENCHMARKS, read_records(store), page_file.with_suffix("")))
    if failed:
        console.print(f"[bold red]failed:[/] {', '.join(failed)}")
    return failed


def measured(name: str, quick: bool) -> list[Record]:
    """Records from a process of their own, so that memory peaks of one benchmark do not show in the next."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_records, name, quick).result()


if __name__ == "__main__":
    sys.exit(main())
