"""`data`: make, index and check data roots, and make the files that some recipes need beside them."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from dualdistill.commands.options.data import Check, Instances, MakeSynthetic, Prepare, VirtualPoints
from dualdistill.data.build import LIDAR
from dualdistill.data.check import SAMPLED, Problem, RootReport, check_root, sampled_problems
from dualdistill.data.config import DataConfig
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.instances import key_images, make_masks, mask_files
from dualdistill.data.splits import custom_splits, official_splits, samples_of_split
from dualdistill.data.virtual_points.clouds import own_files
from dualdistill.data.virtual_points.complete import make_virtual_points
from dualdistill.data.virtual_points.masks import InstanceMasks, SemanticMasks, SyntheticMasks
from dualdistill.data.virtual_points.noise import NoisyMasks
from dualdistill.errors import UserError
from dualdistill.files import require_room
from dualdistill.recipes.catalogue import find
from dualdistill.report.progress import progress
from dualdistill.report.table import Column, Table
from dualdistill.synthetic import BENCH, DEMO, TINY, SyntheticConfig, make_synthetic
from dualdistill.train.assemble import split_names


def make_world(console: Console, options: MakeSynthetic) -> None:
    """Write the world that the options describe. Raises UserError for impossible settings."""
    names = ("seed", "train_scenes", "val_scenes", "key_frames", "image_width")
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.image_width is not None:
        changes["image_height"] = options.image_width * 9 // 16
    try:
        config = dataclasses.replace({"tiny": TINY, "demo": DEMO, "bench": BENCH}[options.size], **changes)
    except ValueError as error:
        raise UserError(str(error)) from None
    synthesise(console, options.root, config, options.workers)


def synthesise(console: Console, root: Path, config: SyntheticConfig, workers: int | None = None) -> None:
    """Write a synthetic world, unless the root already holds it. `workers`: processes; None takes one per core. Raises
    UserError for a root that holds something else."""
    if not root.exists():
        require_room(root, config.num_bytes, f"The world {config.name!r}", "Free some, or take a smaller --size.")
    with progress(console, "making the world") as report:
        make_synthetic(root, config, workers=workers or os.cpu_count() or 1, progress=report)
    index = NuscenesIndex.open(root)
    console.print(
        f"{root}: {len(index.scene_name)} scenes, {len(index)} key frames, {index.num_annotations} annotations"
    )


def prepare_index(console: Console, options: Prepare) -> None:
    """Build the index of a root, or find the one built before.

    Prints its contents, and what is wrong with them as far as the tables and the files of some samples show.
    """
    root, index = options.root, NuscenesIndex.open(options.root, options.version)
    console.print(
        f"{root} ({index.version}): {len(index.scene_name)} scenes, {len(index)} key frames, "
        f"{index.num_annotations} annotations; index in {index.folder}"
    )
    problems = list(sampled_problems(index))
    for problem in problems:
        console.print(f"problem: {_in_words(problem)}", style="yellow")
    if problems:
        console.print(f"{SAMPLED} samples stand for all files here: `dualdistill data check {root}` reads all.")


def check_files(
    console: Console, root: Path, version: str | None, split: str = "all", config: DataConfig | None = None
) -> RootReport:
    """`check_root` with a progress bar."""
    return check_root(root, version, split, config, progress=partial(_shown, console, "checking files"))


def refuse_problems(report: RootReport) -> None:
    """Raise UserError with each problem of a root and its remedy, if there are any."""
    if report.ok:
        return
    lines = "\n  ".join(map(_in_words, report.problems))
    raise UserError(f"{report.root} ({report.version}, {report.split}) has problems:\n  {lines}")


def _in_words(problem: Problem) -> str:
    return f"{problem.count} {problem.what}, such as {problem.example}\n     -> {problem.remedy}"


def check_data(console: Console, options: Check) -> dict[str, Any]:
    """Check tables and sensor files; prints and returns the contents of the root. Without a recipe, all that any recipe
    of LiDAR and cameras reads. Raises UserError with the list of problems, if there are any."""
    config = find(options.recipe).build().data if options.recipe else None
    report = check_files(console, options.root, options.version, options.split, config)
    console.print(
        f"{report.root} ({report.version}): {report.num_scenes} scenes, {report.num_samples} key frames, "
        f"{report.num_annotations} annotations, {report.num_files} files, {report.num_bytes / 1e6:.1f} MB"
    )
    columns = (Column(key="class", title="Class"), Column(key="boxes", title="Boxes with points"))
    boxes = report.boxes_of_class.items()
    table = Table(columns=columns, rows=tuple({"class": name, "boxes": count} for name, count in boxes))
    console.print(table.to_rich(console.width))
    refuse_problems(report)
    if options.split == "all":
        index = NuscenesIndex.open(options.root, options.version)
        known = {name for names in (official_splits() | custom_splits(index)).values() for name in names}
        if known.isdisjoint(index.scene_name):
            raise UserError(
                f"No scene of {index.root} ({index.version}) is in a split such as {split_names(index.version)[0]!r}: "
                f"write {{split: [scene names]}} to {index.root / index.version / 'splits.json'}. Scenes there: "
                f"{', '.join(list(index.scene_name)[:8])}."
            )
    console.print("All files that a training may need are there.", style="green")
    return {**dataclasses.asdict(report), "root": str(report.root)}


def make_virtual(console: Console, options: VirtualPoints) -> None:
    """Make the painted and virtual points of every LiDAR sweep of a root, unless they exist; each noise has its own
    files."""
    index = NuscenesIndex.open(options.root, options.version)
    rows = np.flatnonzero(index.data_channel == LIDAR).tolist()
    masks, files = _masks(index, options), own_files(index, options.masks, options.noise)
    made = make_virtual_points(index, rows, masks, files, progress=partial(_shown, console, "completing sweeps"))
    kept = f"{len(rows) - made} kept, in {files.folder}"
    console.print(f"{index.root}: virtual points of {made} LiDAR sweeps made, {kept}")


def make_instances(console: Console, options: Instances) -> None:
    """Make the instance masks of every key frame image of a split, unless they exist; each noise has its own files."""
    index = NuscenesIndex.open(options.root, options.version)
    rows = key_images(index, samples_of_split(index, options.split))
    masks, files = _masks(index, options), mask_files(index, options.masks, options.noise)
    made = make_masks(index, rows, masks, files, progress=partial(_shown, console, "finding instances"))
    kept = f"{len(rows) - made} kept, in {files.folder}"
    console.print(f"{index.root}: instance masks of {made} images made, {kept}")


def _masks(index: NuscenesIndex, options: VirtualPoints) -> InstanceMasks:
    """The source of instance masks that the options name."""
    # Imported here, because torchvision's detectors take a while and no other verb needs them.
    from dualdistill.data.virtual_points.maskrcnn import WANTED, MaskRcnn

    source, weights, noise = options.masks, options.weights, options.noise
    if weights is not None and source == "synthetic":
        raise UserError(f"--weights has no effect with --masks {source}.")
    if noise and source != "synthetic":
        raise UserError(f"--noise has no effect with --masks {source}, whose masks have real errors.")
    if source == "synthetic":
        return NoisyMasks(SyntheticMasks(index), index, noise) if noise else SyntheticMasks(index)
    if source == "semantic":
        if weights is None:
            raise UserError("--masks semantic needs --weights FOLDER, a folder of class maps (docs/methods/mvp.md).")
        return SemanticMasks(index, weights)
    if weights is None:
        raise UserError(f"--masks maskrcnn needs --weights FILE: {WANTED}.")
    return MaskRcnn(index, weights, device="cuda" if torch.cuda.is_available() else "cpu")


def _shown(console: Console, title: str, rows: Iterable[int]) -> Iterator[int]:
    """The rows, with the progress of the loop over them."""
    every = list(rows)
    with progress(console, title) as report:
        for done, row in enumerate(every, start=1):
            yield row
            report(done, len(every))
