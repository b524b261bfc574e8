"""Options of `bench` and `plan`: what training costs, measured here, or counted before anything is spent."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from dualdistill.commands.options.shared import Overrides, RecipeName, TrainSplit, Version, WritesJson
from dualdistill.errors import UserError


@dataclass(frozen=True)
class _Bench(WritesJson):
    recipe: Annotated[
        str | None,
        typer.Option(help="A name from `recipes list`; default: DualDistill, nuScenes size on a GPU, else synthetic."),
    ] = None
    overrides: Overrides = None
    device: Annotated[Literal["cpu", "cuda"] | None, typer.Option(help="Default: cuda if available.")] = None
    profile: Annotated[
        Path | None, typer.Option(help="Folder for tables of operators or functions by time, and Chrome traces.")
    ] = None


@dataclass(frozen=True)
class BenchStep(_Bench):
    """Measure a training step on a random batch: time, samples/s, TFLOP/s, memory; on a GPU also launches and waits."""

    samples: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Samples per step; default: the recipe's batch, at most 2 on a CPU."),
    ] = None


@dataclass(frozen=True)
class BenchLoader(_Bench):
    """Measure data loading: samples/s of one core and of several processes, and how long a step waits for data."""

    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: a tiny synthetic world.")] = None
    version: Version = None
    split: Annotated[str | None, typer.Option(help="Split to load; default: as in `train`.")] = None
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that load data.")] = 2
    image_cache: Annotated[
        Path | None, typer.Option(help="Folder for decoded images, as in `train`; filled before the measurement.")
    ] = None


@dataclass(frozen=True)
class BenchInference(_Bench):
    """Measure the student on one sample: live, folded and, with the extra `export`, exported."""


@dataclass(frozen=True)
class Plan(WritesJson):
    """Estimate the cost of a recipe: parameters, arithmetic, memory, steps, files, disk, GPU hours."""

    recipe: RecipeName
    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: the official train split.")] = None
    overrides: Overrides = None
    version: Version = None
    split: TrainSplit = None
    devices: Annotated[int, typer.Option(min=1, max=65536, help="Devices that share each batch.")] = 1
    efficiency: Annotated[
        float,
        typer.Option(min=1e-3, max=1, help="Share of a GPU's peak that training reaches; `bench step` measures it."),
    ] = 0.25
    tflops: Annotated[
        float | None,
        typer.Option(min=1e-3, max=1e6, help="Estimate the time for devices that each reach this many TFLOP/s."),
    ] = None
    measure: Annotated[bool, typer.Option(help="Time a step on this machine.")] = False

    def __post_init__(self) -> None:
        if self.measure and self.tflops is not None:
            raise UserError("The time comes from one source: give --measure or --tflops, not both.")
