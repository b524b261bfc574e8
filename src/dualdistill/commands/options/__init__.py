"""The options of every verb: one record a verb, which the command line fills in and the verb's function takes.

The first line of a record is the verb's help. A text beside a type is the help of an option, or, without a default, of
an argument. These modules import no PyTorch, so that `--help` is fast.
"""

from pathlib import Path
from typing import Annotated

from msgspec import Struct
from typer import Option

from dualdistill import files
from dualdistill.errors import UserError

Root = Annotated[Path, Option("--data", help="A nuScenes root: the folder with v1.0-*, samples and sweeps.")]
RootOfRun = Annotated[Path | None, "A nuScenes root; default: the one the run was trained on."]
RootArgument = Annotated[Path, "A nuScenes root."]
Version = Annotated[str | None, "Folder of tables, such as v1.0-mini; needed if a root has several."]
ValSplit = Annotated[str | None, "Default: val, or mini_val for v1.0-mini."]
Overrides = Annotated[list[str] | None, Option("--set", help="Change one setting of the recipe: a.b=c. Repeatable.")]
Checkpoint = Annotated[str, "Checkpoint of a run: last, best or step_000400."]
Workers = Annotated[
    int | None, Option(min=0, max=256, help="Processes that load data; default: usable cores less one, at most 16.")
]


class Options(Struct, frozen=True):
    """Options of a verb."""


class WritesJson(Options, frozen=True, kw_only=True):
    """Options of a verb whose result can also be written as JSON."""

    json_file: Annotated[
        Path | None,
        Option("--json", callback=files.require_writable, help="Also write the output as JSON to this file."),
    ] = None


def require_effect(why: str, **given: object) -> None:
    """Raise a UserError that names the first option that was given (not None), although it has no effect.

    Args:
        why: Condition under which it has none.
    """
    for name, value in given.items():
        if value is not None:
            raise UserError(f"--{name} has no effect {why}: leave it out.")
