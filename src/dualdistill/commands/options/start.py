"""Options of `doctor`, `demo`, `recipes` and `zoo`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dualdistill.commands.options.shared import Out, Overrides, Seed, WritesJson

Name = Annotated[str, typer.Argument(help="A recipe, or a run folder.")]


@dataclass(frozen=True)
class Doctor:
    """Check packages, devices, disk and data, and suggest a fix for each problem."""

    data: Annotated[Path | None, typer.Option(help="Also check this data root.")] = None


@dataclass(frozen=True)
class Demo:
    """Train a camera student alone and distilled on a synthetic world, compare both, and write report.html."""

    out: Out = Path("runs/demo")
    data: Annotated[Path, typer.Option(help="Folder of the synthetic world, made if it is missing.")] = Path(
        "data/synthetic-demo"
    )
    seed: Seed = 0
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny world, four training steps: only checks that everything runs.")
    ] = False
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Train the teacher too; students start from random weights.")
    ] = False


@dataclass(frozen=True)
class RecipesList(WritesJson):
    """List all recipes, with published results if there are any."""


@dataclass(frozen=True)
class RecipesShow(WritesJson):
    """Show the resolved experiment of a recipe or a run."""

    name: Name
    overrides: Overrides = None


@dataclass(frozen=True)
class RecipesDiff(WritesJson):
    """Show the settings that differ between two recipes or runs."""

    a: Name
    b: Annotated[str, typer.Argument(help="The other recipe or run folder.")]


@dataclass(frozen=True)
class Zoo(WritesJson):
    """List the trained models that ship with the package; `zoo:NAME` can be used wherever weights are expected."""

    name: Annotated[str | None, typer.Argument(help="Show the full card of this model.")] = None
