"""Options of `train` and `resume`: from a recipe to a trained detector."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dualdistill.commands.options.shared import (
    Out,
    Overrides,
    RecipeName,
    Root,
    Seed,
    TrainSplit,
    Trust,
    Version,
    Workers,
)

Devices = Annotated[int, typer.Option(min=1, max=4096, help="Processes (GPUs) on each machine; they share each batch.")]
Nodes = Annotated[
    int, typer.Option(min=1, max=4096, help="Machines that train together, started by torchrun, SLURM or MASTER_ADDR.")
]
ImageCacheFolder = Annotated[
    Path | None,
    typer.Option("--image-cache", help="Folder on local disk for decoded images: the same samples, loaded faster."),
]
Log = Annotated[
    list[str] | None,
    typer.Option("--log", help="Also log to tensorboard, wandb or mlflow (extras). Repeatable."),
]


@dataclass(frozen=True)
class Train:
    """Train a teacher, a label encoder, or a student, alone or distilled."""

    recipe: RecipeName
    data: Root
    out: Out = Path("runs")
    overrides: Overrides = None
    seed: Seed = 0
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="Run folder or weights of the teacher; default: the newest run of its recipe in OUT, on these data."
        ),
    ] = None
    label_encoder: Annotated[
        Path | None,
        typer.Option(help="LabelDistill only: run folder or weights; default: the newest in OUT with this teacher."),
    ] = None
    teacher_cache: Annotated[
        Path | None, typer.Option(help="Folder for the teacher's output for each sample: filled first, then reused.")
    ] = None
    image_cache: ImageCacheFolder = None
    version: Version = None
    split: TrainSplit = None
    workers: Workers = None
    devices: Devices = 1
    nodes: Nodes = 1
    log: Log = None
    check: Annotated[bool, typer.Option(help="Check every sensor file before training.")] = True
    profile: Annotated[
        Path | None, typer.Option(help="Folder for a Chrome trace and a table of operators of the first steps.")
    ] = None


@dataclass(frozen=True)
class Resume:
    """Continue a training exactly from its newest checkpoint."""

    run: Annotated[Path, typer.Argument(help="Run folder of an interrupted training.")]
    image_cache: ImageCacheFolder = None
    workers: Workers = None
    devices: Devices = 1
    nodes: Nodes = 1
    log: Log = None
    trust: Trust = False
