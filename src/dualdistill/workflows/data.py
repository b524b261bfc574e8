"""`data make-synthetic`, `data prepare`, `data check`."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dualdistill.data.check import check_root
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.synthetic import BENCH, DEMO, TINY, make_synthetic
from dualdistill.errors import UserError
from dualdistill.workflows.progress import progress

SIZES = {"tiny": TINY, "demo": DEMO, "bench": BENCH}


def synthesise(console: Console, root: Path, size: str, seed: int, workers: int | None) -> None:
    """Write a synthetic world; one that is there already is kept."""
    if size not in SIZES:
        raise UserError(f"There is no size {size!r}; choose {', '.join(SIZES)}.")
    config = dataclasses.replace(SIZES[size], seed=seed)
    with progress(console, "making the world") as say:
        make_synthetic(root, config, workers=workers or os.cpu_count() or 1, progress=say)
    index = NuscenesIndex.open(root)
    console.print(
        f"{root}: {len(index.scene_name)} scenes, {len(index)} key frames, {index.num_annotations} annotations"
    )


def prepare_index(console: Console, root: Path, version: str | None) -> None:
    """Build or find the index of a root."""
    index = NuscenesIndex.open(root, version)
    console.print(
        f"{root} ({index.version}): {len(index.scene_name)} scenes, {len(index)} key frames, "
        f"{index.num_annotations} annotations; index in {index.folder}"
    )


def check_data(console: Console, root: Path, version: str | None) -> dict[str, Any]:
    """Look at tables and files; prints what is there and what is wrong.

    Raises:
        UserError: after the list, if there are problems.
    """
    with progress(console, "looking at files") as say:

        def watched(rows: Iterable[int]) -> Iterable[int]:
            every = list(rows)
            for done, row in enumerate(every, start=1):
                yield row
                say(done, len(every))

        report = check_root(root, version, progress=watched)
    console.print(
        f"{report.root} ({report.version}): {report.num_scenes} scenes, {report.num_samples} key frames, "
        f"{report.num_annotations} annotations, {report.num_files} files, {report.num_bytes / 1e6:.1f} MB"
    )
    table = Table("class", "boxes with points", box=None, header_style="bold", pad_edge=False)
    for name, count in report.boxes_of_class.items():
        table.add_row(name, str(count))
    console.print(table)
    for problem in report.problems:
        console.print(f"[red]{problem.count}[/] {escape(problem.what)}, such as {escape(problem.example)}")
        console.print(f"     -> {escape(problem.remedy)}")
    if not report.ok:
        raise UserError(f"{root} has {len(report.problems)} kinds of problems, listed above with what to do.")
    console.print("[green]Everything that a training may need is there.[/]")
    return {**dataclasses.asdict(report), "root": str(report.root)}
