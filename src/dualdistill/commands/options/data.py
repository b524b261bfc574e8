"""Options of `data`: make, index and check data roots, and make the files that some recipes need beside them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from dualdistill.commands.options.shared import RootArgument, Version, WritesJson


@dataclass(frozen=True)
class MakeSynthetic:
    """Make a synthetic driving world in the nuScenes format."""

    root: Annotated[Path, typer.Argument(help="New folder for the world.")]
    size: Annotated[Literal["tiny", "demo", "bench"], typer.Option(help="Size of the world.")] = "demo"
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same bytes; default: that of --size."),
    ] = None
    train_scenes: Annotated[int | None, typer.Option(min=0, help="Training scenes; overrides --size.")] = None
    val_scenes: Annotated[int | None, typer.Option(min=0, help="Validation scenes; overrides --size.")] = None
    key_frames: Annotated[
        int | None, typer.Option(min=1, help="Key frames per scene, two per second; overrides --size.")
    ] = None
    image_width: Annotated[int | None, typer.Option(min=16, help="In pixels, 16:9; overrides --size.")] = None
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes; default: one per core.")] = None


@dataclass(frozen=True)
class Prepare:
    """Index the tables of a root in advance; otherwise the first training does it."""

    root: RootArgument
    version: Version = None


@dataclass(frozen=True)
class Check(WritesJson):
    """Check the tables of a root and all of its sensor files."""

    root: RootArgument
    version: Version = None
    split: Annotated[str, typer.Option(help="Split to check; default: every sample.")] = "all"
    recipe: Annotated[str | None, typer.Option(help="Check only the files that this recipe reads.")] = None


@dataclass(frozen=True)
class VirtualPoints:
    """Make the virtual points that an MVP teacher needs, for each LiDAR sweep."""

    root: RootArgument
    masks: Annotated[
        Literal["synthetic", "maskrcnn", "semantic"],
        typer.Option(help="Source of the instance masks; synthetic: a synthetic world's own; semantic: class maps."),
    ] = "synthetic"
    weights: Annotated[
        Path | None, typer.Option(help="maskrcnn: local COCO weights of torchvision; semantic: folder of class maps.")
    ] = None
    noise: Annotated[
        float,
        typer.Option(min=0, max=1, help="Errors added to the perfect masks of a synthetic world: 0 (none) to 1."),
    ] = 0.0
    version: Version = None


@dataclass(frozen=True)
class Instances(VirtualPoints):
    """Make the instance masks that X-IS (recipes x3kd-full-…) needs, for each key frame image."""

    split: Annotated[str, typer.Option(help="Split of the key frames; train is enough for training.")] = "all"
