"""What training costs: measured here (`bench`), and counted before anything is spent (`plan`)."""

from pathlib import Path
from typing import Annotated

import typer

from dualdistill.cli.shared import JsonFile, Overrides, Version, console, write_json

app = typer.Typer(help="Time and memory of training, loading and inference on this machine.", no_args_is_help=True)

Recipe = Annotated[
    str | None,
    typer.Option(help="A name from `recipes list`; default: DualDistill, nuScenes size on a GPU, else synthetic."),
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda if available.")]
Profile = Annotated[Path | None, typer.Option(help="Folder for a Chrome trace and a table of operators.")]


@app.command()
def step(
    recipe: Recipe = None,
    device: Device = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Samples per step; default: the recipe's batch, at most 2 on a CPU."),
    ] = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    profile: Profile = None,
) -> None:
    """Measure a training step on a random batch: time, samples/s, TFLOP/s, memory; on a GPU also launches and waits."""
    from dualdistill.commands.bench import bench_step

    rows = bench_step(console, recipe, overrides=overrides or [], device=device, samples=samples, profile=profile)
    write_json(json_file, rows)


@app.command()
def loader(
    recipe: Recipe = None,
    device: Device = None,
    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: a tiny synthetic world.")] = None,
    version: Version = None,
    split: Annotated[str | None, typer.Option(help="Split to load; default: as in `train`.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that load data.")] = 2,
    image_cache: Annotated[
        Path | None, typer.Option(help="Folder for decoded images, as in `train`; filled before the measurement.")
    ] = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    profile: Annotated[Path | None, typer.Option(help="Folder for a table of functions by time.")] = None,
) -> None:
    """Measure data loading: samples/s of one core and of several processes, and how long a step waits for data."""
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
    """Measure the student on one sample: live, folded and, with the extra `export`, exported."""
    from dualdistill.commands.bench import bench_inference

    write_json(json_file, bench_inference(console, recipe, overrides=overrides or [], device=device, profile=profile))


def plan(
    recipe: Annotated[str, typer.Argument(help="A name from `dualdistill recipes list`.")],
    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: the official train split.")] = None,
    overrides: Overrides = None,
    version: Version = None,
    split: Annotated[
        str | None, typer.Option(help="Training split; default: train, or mini_train for v1.0-mini.")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, max=65536, help="Devices that share each batch.")] = 1,
    efficiency: Annotated[
        float,
        typer.Option(min=1e-3, max=1, help="Share of a GPU's peak that training reaches; `bench step` measures it."),
    ] = 0.25,
    tflops: Annotated[
        float | None,
        typer.Option(min=1e-3, max=1e6, help="Estimate the time for devices that each reach this many TFLOP/s."),
    ] = None,
    measure: Annotated[bool, typer.Option(help="Time a step on this machine.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Estimate the cost of a recipe: parameters, arithmetic, memory, steps, files, disk, GPU hours."""
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
