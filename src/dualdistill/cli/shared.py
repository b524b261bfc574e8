"""Options with the same meaning in every verb, and the console."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console(soft_wrap=True, highlight=False)

Root = Annotated[Path, typer.Option("--data", help="A nuScenes root: the folder with v1.0-*, samples and sweeps.")]
Version = Annotated[str | None, typer.Option(help="Folder of tables, such as v1.0-mini; needed if a root has several.")]
Out = Annotated[Path, typer.Option(help="Folder for the run folders.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change one setting of the recipe: a.b=c. Repeatable.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the output as JSON to this file.")]
Seed = Annotated[int, typer.Option(help="Seed of initial weights, sample order and augmentation.")]
Workers = Annotated[
    int | None, typer.Option(help="Processes that load data; default: one less than the usable cores, at most 16.")
]


def write_json(path: Path | None, value: object) -> None:
    """Write `value` as JSON, if a file was given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=2) + "\n")
