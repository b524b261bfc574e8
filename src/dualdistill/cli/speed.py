"""What training costs: measured here (`bench`), and counted before anything is spent (`plan`)."""

from pathlib import Path
from typing import Annotated

import typer

from dualdistill.cli.shared import JsonFile, Overrides, Version, console, write_json

app = typer.Typer(help="Time and memory of training, loading and inference on this machine.", no_args_is_help=True)

Recipe = Annotated[
    str | None,
    typer.Option(help="A name from `recipes list`; default: DualDistill, of nuScenes size on a GPU, else synthetic."),
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda where there is one.")]
Profile = Annotated[Path | None, typer.Option(help="Folder for a Chrome trace and a table of operators.")]


@app.command()
def step(
    recipe: Recipe = None,
    device: Device = None,
    samples: Annotated[
        int | None, typer.Option(min=1, max=4096, help="At once; default: the recipe's batch, at most 2 on a CPU.")
    ] = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    profile: Profile = None,
) -> None:
    """One training step on a random batch: time, samples/s, TFLOP/s, memory; on a GPU launches and waits too."""
    from dualdistill.commands.bench import bench_step

    rows = bench_step(console, recipe, overrides=overrides or [], device=device, samples=samples, profile=profile)
    write_json(json_file, rows)


@app.command()
def loader(
    recipe: Recipe = None,
    device: Device = None,
    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: a tiny synthetic world.")] = None,
    version: Version = None,
    split: Annotated[str | None, typer.Option(help="Loaded as if trained on; default: as in `train`.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that load data.")] = 2,
    image_cache: Annotated[
        Path | None, typer.Option(help="Folder for decoded images, as in `train`; filled before it is measured.")
    ] = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    profile: Annotated[Path | None, typer.Option(help="Folder for a table of functions by time.")] = None,
) -> None:
    """Data loading of a training: samples/s of one core and of several processes, and what a step waits for it."""
    from dualdistill.commands.bench import bench_loader

    rows = bench_loader(
        console,
        recipe,
        overrides=overrides or [],
        device=device,
        data=data,
        version=version,
        split=split,
        workers=workers,
        image_cache=image_cache,
        profile=profile,
    )
    write_json(json_file, rows)


@app.command()
def inference(
    recipe: Recipe = None,
    device: Device = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    profile: Profile = None,
) -> None:
    """One sample through the student: live, folded, and exported where the extra is installed."""
    from dualdistill.commands.bench import bench_inference

    write_json(json_file, bench_inference(console, recipe, overrides=overrides or [], device=device, profile=profile))


def plan(
    recipe: Annotated[str, typer.Argument(help="A name from `dualdistill recipes list`.")],
    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: the official train split.")] = None,
    overrides: Overrides = None,
    version: Version = None,
    split: Annotated[str | None, typer.Option(help="Trained on; default: train, or mini_train for v1.0-mini.")] = None,
    devices: Annotated[int, typer.Option(min=1, max=65536, help="Devices that share each batch.")] = 1,
    efficiency: Annotated[
        float,
        typer.Option(min=1e-3, max=1, help="Share of a GPU's peak that training reaches; `bench step` measures it."),
    ] = 0.25,
    tflops: Annotated[
        float | None,
        typer.Option(min=1e-3, max=1e6, help="Time on devices that each reach so many TFLOP/s in training."),
    ] = None,
    measure: Annotated[bool, typer.Option(help="Time a step on this machine.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Cost of a recipe before anything is spent: parameters, arithmetic, memory, steps, files, disk, GPU hours."""
    from dualdistill.commands.plan import plan as make_plan

    facts = make_plan(
        console,
        recipe,
        overrides=overrides or [],
        data=data,
        version=version,
        split=split,
        devices=devices,
        efficiency=efficiency,
        tflops=tflops,
        measure=measure,
    )
    write_json(json_file, facts)
