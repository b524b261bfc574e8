"""What the verbs share: options that mean the same everywhere, and the console."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console(soft_wrap=True, highlight=False)

Root = Annotated[Path, typer.Option("--data", help="A nuScenes root: the folder that holds v1.0-*, samples, sweeps.")]
Version = Annotated[
    str | None, typer.Option(help="Folder of tables, such as v1.0-mini; needed where a root has several.")
]
Out = Annotated[Path, typer.Option(help="Where run folders go.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting of the recipe: a.b=c. May be given many times."),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write what is printed as JSON to this file.")]
Seed = Annotated[int, typer.Option(help="Of initial weights, order and augmentation.")]
Workers = Annotated[int | None, typer.Option(help="Processes that load data; default: one less than there are cores.")]


def write_json(path: Path | None, value: object) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=2) + "\n")
