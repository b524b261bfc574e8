"""First steps: is everything here, and does it work?"""

from pathlib import Path
from typing import Annotated

import typer

from dualdistill.cli.shared import Out, Seed, console


def doctor(data: Annotated[Path | None, typer.Option(help="A data root to look at too.")] = None) -> None:
    """Look at the environment, devices, disk and data; each problem with its remedy."""
    from dualdistill.commands.doctor import examine

    raise typer.Exit(examine(console, data))


def demo(
    out: Out = Path("runs/demo"),
    data: Annotated[Path, typer.Option(help="Where the synthetic world is made.")] = Path("data/synthetic-demo"),
    seed: Seed = 0,
    quick: Annotated[bool, typer.Option(help="A tiny world and a few steps: shows the path, proves nothing.")] = False,
) -> None:
    """Teacher, student and distilled student on a synthetic world: from nothing to a table and a page, in minutes."""
    from dualdistill.commands.demo import run_demo

    run_demo(console, out=out, data=data, seed=seed, quick=quick)
