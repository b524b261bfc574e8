"""Options with the same meaning in every verb, and the console."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dualdistill import files
from dualdistill.errors import UserError

console = Console(soft_wrap=True, highlight=False, markup=False)  # paths may have square brackets

Root = Annotated[Path, typer.Option("--data", help="A nuScenes root: the folder with v1.0-*, samples and sweeps.")]
Version = Annotated[str | None, typer.Option(help="Folder of tables, such as v1.0-mini; needed if a root has several.")]
Out = Annotated[Path, typer.Option(help="Folder for the run folders.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change one setting of the recipe: a.b=c. Repeatable.")
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", callback=files.require_writable, help="Also write the output as JSON to this file."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of weights, sample order and augmentation.")]
Trust = Annotated[bool, typer.Option("--trust", help="Allow the run's code from outside this package.")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, max=256, help="Processes that load data; default: one less than the usable cores, at most 16."),
]


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


def write_json(path: Path | None, value: object) -> None:
    """Write `value` as JSON, if a file was given."""
    if path is not None:
        files.write_json(path, value)
