"""The verbs `doctor` and `demo`."""

from pathlib import Path
from typing import Annotated

import typer

from dualdistill.cli.shared import Out, Seed, console


def doctor(data: Annotated[Path | None, typer.Option(help="Also check this data root.")] = None) -> None:
    """Check packages, devices, disk and data, and suggest a fix for each problem."""
    from dualdistill.commands.doctor import run_checks

    raise typer.Exit(run_checks(console, data))


def demo(
    out: Out = Path("runs/demo"),
    data: Annotated[Path, typer.Option(help="Folder of the synthetic world, made if it is missing.")] = Path(
        "data/synthetic-demo"
    ),
    seed: Seed = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny world, four training steps: only checks that everything runs.")
    ] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Train the teacher too; students start from random weights.")
    ] = False,
) -> None:
    """Train a camera student alone and distilled on a synthetic world, compare both, and write report.html."""
    from dualdistill.commands.demo import run_demo

    run_demo(console, out=out, data=data, seed=seed, quick=quick, from_scratch=from_scratch)
