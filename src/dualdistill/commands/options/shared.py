"""Options with the same meaning in every verb."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from dualdistill import files
from dualdistill.errors import UserError

Root = Annotated[Path, typer.Option("--data", help="A nuScenes root: the folder with v1.0-*, samples and sweeps.")]
RootOfRun = Annotated[
    Path | None, typer.Option("--data", help="A nuScenes root; default: the one the run was trained on.")
]
RootArgument = Annotated[Path, typer.Argument(help="A nuScenes root.")]
Version = Annotated[str | None, typer.Option(help="Folder of tables, such as v1.0-mini; needed if a root has several.")]
TrainSplit = Annotated[str | None, typer.Option(help="Training split; default: train, or mini_train for v1.0-mini.")]
ValSplit = Annotated[str | None, typer.Option(help="Default: val, or mini_val for v1.0-mini.")]
RecipeName = Annotated[str, typer.Argument(help="A name from `dualdistill recipes list`, or file.py:function.")]
Out = Annotated[Path, typer.Option(help="Folder for the run folders.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change one setting of the recipe: a.b=c. Repeatable.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of weights, sample order and augmentation.")]
Checkpoint = Annotated[str, typer.Option(help="Checkpoint of a run: last, best or step_000400.")]
Trust = Annotated[bool, typer.Option("--trust", help="Allow the run's code from outside this package.")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, max=256, help="Processes that load data; default: one less than the usable cores, at most 16."),
]


@dataclass(frozen=True)
class WritesJson:
    """Options of a verb whose result can also be written as JSON."""

    json_file: Annotated[
        Path | None,
        typer.Option("--json", callback=files.require_writable, help="Also write the output as JSON to this file."),
    ] = field(default=None, kw_only=True)


def require_effect(why: str, **given: object) -> None:
    """Check that none of some options was given.

    Args:
        why: They have no effect.
        given: Value of each by its name; None if it was not.

    Raises:
        UserError: naming the first one that was.
    """
    for name, value in given.items():
        if value is not None:
            raise UserError(f"--{name} has no effect {why}: leave it out.")
