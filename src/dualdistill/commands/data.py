"""`data`: make, index and check data roots, and make the files that some recipes need beside them."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console

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
from dualdistill.report.table import Column, Table, Value
from dualdistill.synthetic import BENCH, DEMO, TINY, SyntheticConfig, make_synthetic
from dualdistill.train.assemble import split_names


def sized(size: str, image_width: int | None = None, **changes: Any) -> SyntheticConfig:
    """A size of world by name, with changes; None leaves a setting as it is. `image_width`: pixels; the height follows,
    16:9. Raises UserError for a setting that cannot be."""
    if image_width is not None:
        changes |= {"image_width": image_width, "image_height": image_width * 9 // 16}
    try:
        return dataclasses.replace(
            {"tiny": TINY, "demo": DEMO, "bench": BENCH}[size],
            **{name: value for name, value in changes.items() if value is not None},
        )
    except ValueError as error:
        raise UserError(str(error)) from None


Masks = Literal["synthetic", "maskrcnn", "semantic"]
"""Sources of instance masks."""


def synthesise(console: Console, root: Path, config: SyntheticConfig, workers: int | None) -> None:
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


def prepare_index(console: Console, root: Path, version: str | None) -> None:
    """Build the index of a root, or find the one built before.

    Prints its contents, and what is wrong with them as far as the tables and the files of some samples show.
    """
    index = NuscenesIndex.open(root, version)
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


def check_data(
    console: Console, root: Path, version: str | None, split: str = "all", recipe: str | None = None
) -> dict[str, Any]:
    """Check tables and sensor files; prints and returns the contents of the root. `recipe`: its data are checked; None:
    all that any recipe of LiDAR and cameras reads. Raises UserError with the list of problems, if there are any."""
    report = check_files(console, root, version, split, find(recipe).build().data if recipe else None)
    console.print(
        f"{report.root} ({report.version}): {report.num_scenes} scenes, {report.num_samples} key frames, "
        f"{report.num_annotations} annotations, {report.num_files} files, {report.num_bytes / 1e6:.1f} MB"
    )
    columns = (Column(key="class", title="Class"), Column(key="boxes", title="Boxes with points"))
    rows: tuple[dict[str, Value], ...] = tuple(
        {"class": name, "boxes": count} for name, count in report.boxes_of_class.items()
    )
    console.print(Table(columns=columns, rows=rows).to_rich(console.width))
    refuse_problems(report)
    if split == "all":
        _require_scenes(NuscenesIndex.open(root, version))
    console.print("All files that a training may need are there.", style="green")
    return {**dataclasses.asdict(report), "root": str(report.root)}


def _require_scenes(index: NuscenesIndex) -> None:
    """Raises UserError where no scene belongs to a split that is trained or evaluated on."""
    splits = official_splits() | custom_splits(index)
    if not any(name in names for names in splits.values() for name in index.scene_name):
        raise UserError(
            f"No scene of {index.root} ({index.version}) is in a split such as {split_names(index.version)[0]!r}: "
            f"write {{split: [scene names]}} to {index.root / index.version / 'splits.json'}. Scenes there: "
            f"{', '.join(list(index.scene_name)[:8])}."
        )


def make_virtual(
    console: Console, root: Path, version: str | None, source: Masks, weights: Path | None, noise: float = 0.0
) -> None:
    """Make the painted and virtual points of every LiDAR sweep of a root, unless they exist.

    Args:
        source: Origin of the instance masks.
        weights: Local weights of Mask R-CNN, or the folder of class maps.
        noise: As in `VirtualPointsConfig`; each value has its own files.
    """
    index = NuscenesIndex.open(root, version)
    masks = _masks(index, source, weights, noise)
    files = own_files(index, source, noise)
    rows = np.flatnonzero(index.data_channel == LIDAR).tolist()
    made = make_virtual_points(index, rows, masks, files, progress=partial(_shown, console, "completing sweeps"))
    console.print(f"{root}: virtual points of {made} LiDAR sweeps made, {len(rows) - made} kept, in {files.folder}")


def make_instances(
    console: Console,
    root: Path,
    version: str | None,
    source: Masks,
    weights: Path | None,
    noise: float = 0.0,
    split: str = "all",
) -> None:
    """Make the instance masks of every key frame image of a split, unless they exist; `weights` and `noise` as in
    `make_virtual`, each noise with its own files."""
    index = NuscenesIndex.open(root, version)
    rows = key_images(index, samples_of_split(index, split))
    masks = _masks(index, source, weights, noise)
    files = mask_files(index, source, noise)
    made = make_masks(index, rows, masks, files, progress=partial(_shown, console, "finding instances"))
    console.print(f"{root}: instance masks of {made} images made, {len(rows) - made} kept, in {files.folder}")


def _masks(index: NuscenesIndex, source: Masks, weights: Path | None, noise: float) -> InstanceMasks:
    """The source of instance masks that the options name."""
    # Imported here, because torchvision's detectors take a while and no other verb needs them.
    from dualdistill.data.virtual_points.maskrcnn import WANTED, MaskRcnn

    if weights is not None and source == "synthetic":
        raise UserError(f"--weights has no effect with --masks {source}.")
    if not 0 <= noise <= 1:  # NaN is not
        raise UserError(f"--noise must lie between 0 and 1, got {noise:g}.")
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
