"""The verbs of `dualdistill data`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dualdistill.cli.shared import JsonFile, Version, console, write_json

app = typer.Typer(help="Make, index and check data roots.", no_args_is_help=True)

Masks = Annotated[
    Literal["synthetic", "maskrcnn", "semantic"],
    typer.Option(help="Source of the instance masks; synthetic: a synthetic world's own; semantic: class maps."),
]
MaskWeights = Annotated[
    Path | None, typer.Option(help="maskrcnn: local COCO weights of torchvision; semantic: folder of class maps.")
]
Noise = Annotated[
    float, typer.Option(min=0, max=1, help="Errors added to the perfect masks of a synthetic world: 0 (none) to 1.")
]


@app.command("make-synthetic")
def make_synthetic(
    root: Annotated[Path, typer.Argument(help="New folder for the world.")],
    size: Annotated[Literal["tiny", "demo", "bench"], typer.Option(help="Size of the world.")] = "demo",
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same bytes; default: that of --size."),
    ] = None,
    train_scenes: Annotated[int | None, typer.Option(min=0, help="Training scenes; overrides --size.")] = None,
    val_scenes: Annotated[int | None, typer.Option(min=0, help="Validation scenes; overrides --size.")] = None,
    key_frames: Annotated[
        int | None, typer.Option(min=1, help="Key frames per scene, two per second; overrides --size.")
    ] = None,
    image_width: Annotated[int | None, typer.Option(min=16, help="In pixels, 16:9; overrides --size.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes; default: one per core.")] = None,
) -> None:
    """Make a synthetic driving world in the nuScenes format."""
    from dualdistill.commands.data import sized, synthesise

    config = sized(
        size,
        seed=seed,
        train_scenes=train_scenes,
        val_scenes=val_scenes,
        key_frames=key_frames,
        image_width=image_width,
    )
    synthesise(console, root, config, workers)


@app.command("prepare")
def prepare(root: Annotated[Path, typer.Argument(help="A nuScenes root.")], version: Version = None) -> None:
    """Index the tables of a root in advance; otherwise the first training does it."""
    from dualdistill.commands.data import prepare_index

    prepare_index(console, root, version)


@app.command("check")
def check(
    root: Annotated[Path, typer.Argument(help="A nuScenes root.")],
    version: Version = None,
    split: Annotated[str, typer.Option(help="Split to check; default: every sample.")] = "all",
    recipe: Annotated[str | None, typer.Option(help="Check only the files that this recipe reads.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Check the tables of a root and all of its sensor files."""
    from dualdistill.commands.data import check_data

    write_json(json_file, check_data(console, root, version, split, recipe))


@app.command("virtual-points")
def virtual_points(
    root: Annotated[Path, typer.Argument(help="A nuScenes root.")],
    masks: Masks = "synthetic",
    weights: MaskWeights = None,
    noise: Noise = 0.0,
    version: Version = None,
) -> None:
    """Make the virtual points that an MVP teacher needs, for each LiDAR sweep."""
    from dualdistill.commands.data import make_virtual

    make_virtual(console, root, version, masks, weights, noise)


@app.command("instances")
def instances(
    root: Annotated[Path, typer.Argument(help="A nuScenes root.")],
    masks: Masks = "synthetic",
    weights: MaskWeights = None,
    noise: Noise = 0.0,
    split: Annotated[str, typer.Option(help="Split of the key frames; train is enough for training.")] = "all",
    version: Version = None,
) -> None:
    """Make the instance masks that X-IS (recipes x3kd-full-…) needs, for each key frame image."""
    from dualdistill.commands.data import make_instances

    make_instances(console, root, version, masks, weights, noise, split)
