"""Options of `doctor` and `data`: this machine, data roots, and the files that some recipes need beside them."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from dualdistill.commands.options import Options, RootArgument, Version, WritesJson


class Doctor(Options, frozen=True):
    """Check packages, devices, disk and data, and suggest a fix for each problem."""

    data: Annotated[Path | None, "Also check this data root."] = None


class MakeSynthetic(Options, frozen=True):
    """Make a synthetic driving world in the nuScenes format."""

    root: Annotated[Path, "New folder for the world."]
    size: Annotated[Literal["tiny", "demo", "bench"], "Size of the world."] = "demo"
    seed: Annotated[int | None, Option(min=0, max=2**32 - 1, help="Same seed, same bytes; default: --size's.")] = None
    train_scenes: Annotated[int | None, Option(min=0, help="Training scenes; overrides --size.")] = None
    val_scenes: Annotated[int | None, Option(min=0, help="Validation scenes; overrides --size.")] = None
    key_frames: Annotated[int | None, Option(min=1, help="Key frames per scene, at 2 Hz; overrides --size.")] = None
    image_width: Annotated[int | None, Option(min=16, help="In pixels, 16:9; overrides --size.")] = None
    workers: Annotated[int | None, Option(min=1, max=256, help="Processes; default: one per core.")] = None


class Prepare(Options, frozen=True):
    """Index the tables of a root in advance; otherwise the first training does it."""

    root: RootArgument
    version: Version = None


class Check(WritesJson, frozen=True):
    """Check the tables of a root and all of its sensor files."""

    root: RootArgument
    version: Version = None
    split: Annotated[str, "Split to check; default: every sample."] = "all"
    recipe: Annotated[str | None, "Check only the files that this recipe reads."] = None


class VirtualPoints(Options, frozen=True):
    """Make the virtual points that an MVP teacher needs, for each LiDAR sweep."""

    root: RootArgument
    masks: Annotated[
        Literal["synthetic", "maskrcnn", "semantic"],
        "Source of the instance masks; synthetic: a synthetic world's own; semantic: class maps.",
    ] = "synthetic"
    weights: Annotated[Path | None, "maskrcnn: COCO weights of torchvision; semantic: folder of class maps."] = None
    noise: Annotated[float, Option(min=0, max=1, help="Errors of a synthetic world's masks: 0 (none) to 1.")] = 0.0
    version: Version = None


class Instances(VirtualPoints, frozen=True):
    """Make the instance masks that X-IS (recipes x3kd-full-…) needs, for each key frame image."""

    split: Annotated[str, "Split of the key frames; train is enough for training."] = "all"
