"""From a recipe to a trained detector."""

from pathlib import Path
from typing import Annotated

import typer

from dualdistill.cli.shared import Out, Overrides, Root, Seed, Trust, Version, Workers, console

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


def train(
    recipe: Annotated[str, typer.Argument(help="A name from `dualdistill recipes list`, or file.py:function.")],
    data: Root,
    out: Out = Path("runs"),
    overrides: Overrides = None,
    seed: Seed = 0,
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="Run folder or weights of the teacher; default: the newest run of its recipe in OUT, on these data."
        ),
    ] = None,
    label_encoder: Annotated[
        Path | None,
        typer.Option(help="LabelDistill only: run folder or weights; default: the newest in OUT with this teacher."),
    ] = None,
    teacher_cache: Annotated[
        Path | None, typer.Option(help="Folder for the teacher's output for each sample: filled first, then reused.")
    ] = None,
    image_cache: ImageCacheFolder = None,
    version: Version = None,
    split: Annotated[
        str | None, typer.Option(help="Training split; default: train, or mini_train for v1.0-mini.")
    ] = None,
    workers: Workers = None,
    devices: Devices = 1,
    nodes: Nodes = 1,
    log: Log = None,
    check: Annotated[bool, typer.Option(help="Check every sensor file before training.")] = True,
    profile: Annotated[
        Path | None, typer.Option(help="Folder for a Chrome trace and a table of operators of the first steps.")
    ] = None,
) -> None:
    """Train a teacher, a label encoder, or a student, alone or distilled."""
    from dualdistill.commands.train import start_training

    start_training(
        console,
        recipe,
        data=data,
        out=out,
        overrides=overrides or [],
        seed=seed,
        teacher=teacher,
        label_encoder=label_encoder,
        teacher_cache=teacher_cache,
        image_cache=image_cache,
        version=version,
        split=split,
        workers=workers,
        devices=devices,
        nodes=nodes,
        log=log or (),
        check=check,
        profile=profile,
    )


def resume(
    run: Annotated[Path, typer.Argument(help="Run folder of an interrupted training.")],
    image_cache: ImageCacheFolder = None,
    workers: Workers = None,
    devices: Devices = 1,
    nodes: Nodes = 1,
    log: Log = None,
    trust: Trust = False,
) -> None:
    """Continue a training exactly from its newest checkpoint."""
    from dualdistill.commands.train import resume_training

    resume_training(
        console, run, image_cache=image_cache, workers=workers, devices=devices, nodes=nodes, log=log, trust=trust
    )
