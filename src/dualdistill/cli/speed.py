"""How fast everything is."""

from pathlib import Path
from typing import Annotated

import typer

from dualdistill.cli.shared import JsonFile, console, write_json


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks; none lists them.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    quick: Annotated[bool, typer.Option(help="Small sizes: seconds each, to look at, not to judge by.")] = False,
    page: Annotated[
        Path | None, typer.Option(help="Also write this page, such as docs/performance.md; rows are kept beside it.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Leave out what the JSON file or the page has already.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Time and memory of every fast form beside its reference, measured in the same run, results compared."""
    from benchmarks.catalogue import BENCHMARKS
    from benchmarks.run import list_benchmarks, run_benchmarks

    chosen = list(BENCHMARKS) if every else names or []
    if chosen:
        run_benchmarks(console, chosen, quick=quick, json_file=json_file, page_file=page, resume=resume)
    else:
        write_json(json_file, list_benchmarks(console))
