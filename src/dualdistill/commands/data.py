"""`data make-synthetic`, `data prepare`, `data check`, `data virtual-points`, `data instances`."""

import dataclasses
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from dualdistill.data.build import LIDAR
from dualdistill.data.check import RootReport, check_root
from dualdistill.data.config import DataConfig
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.data.virtual_points.cache import VirtualPointsCache
from dualdistill.data.virtual_points.make import make_virtual_points
from dualdistill.data.virtual_points.mask_cache import MaskCache, key_images, make_masks
from dualdistill.data.virtual_points.masks import InstanceMasks
from dualdistill.data.virtual_points.noise import NoisyMasks
from dualdistill.data.virtual_points.synthetic_masks import SyntheticMasks
from dualdistill.errors import UserError
from dualdistill.report.progress import Say, progress
from dualdistill.synthetic import BENCH, DEMO, TINY, make_synthetic

SIZES = {"tiny": TINY, "demo": DEMO, "bench": BENCH}


def synthesise(console: Console, root: Path, size: str, seed: int, workers: int | None) -> None:
    """Write a synthetic world; one that is there already is kept."""
    if size not in SIZES:
        raise UserError(f"There is no size {size!r}; choose {', '.join(SIZES)}.")
    config = dataclasses.replace(SIZES[size], seed=seed)
    with progress(console, "making the world") as say:
        make_synthetic(root, config, workers=workers or os.cpu_count() or 1, progress=say)
    index = NuscenesIndex.open(root)
    console.print(
        f"{root}: {len(index.scene_name)} scenes, {len(index)} key frames, {index.num_annotations} annotations"
    )


def prepare_index(console: Console, root: Path, version: str | None) -> None:
    """Build or find the index of a root."""
    index = NuscenesIndex.open(root, version)
    console.print(
        f"{root} ({index.version}): {len(index.scene_name)} scenes, {len(index)} key frames, "
        f"{index.num_annotations} annotations; index in {index.folder}"
    )


def look_at_files(
    console: Console, root: Path, version: str | None, split: str = "all", config: DataConfig | None = None
) -> RootReport:
    """`check_root` with its progress shown."""
    with progress(console, "looking at files") as say:
        return check_root(root, version, split, config, progress=_watched(say))


def refuse_problems(report: RootReport) -> None:
    """Raises UserError with what is wrong and what to do, if anything is."""
    if report.ok:
        return
    lines = [f"{p.count} {p.what}, such as {p.example}\n     -> {p.remedy}" for p in report.problems]
    raise UserError(
        f"{report.root} ({report.version}, {report.split}) cannot be used as it is:\n  " + "\n  ".join(lines)
    )


def check_data(console: Console, root: Path, version: str | None) -> dict[str, Any]:
    """Look at tables and files; prints what is there and what is wrong.

    Raises:
        UserError: after the list, if there are problems.
    """
    report = look_at_files(console, root, version)
    console.print(
        f"{report.root} ({report.version}): {report.num_scenes} scenes, {report.num_samples} key frames, "
        f"{report.num_annotations} annotations, {report.num_files} files, {report.num_bytes / 1e6:.1f} MB"
    )
    table = Table("class", "boxes with points", box=None, header_style="bold", pad_edge=False)
    for name, count in report.boxes_of_class.items():
        table.add_row(name, str(count))
    console.print(table)
    refuse_problems(report)
    console.print("[green]Everything that a training may need is there.[/]")
    return {**dataclasses.asdict(report), "root": str(report.root)}


def make_virtual(
    console: Console, root: Path, version: str | None, source: str, weights: Path | None, noise: float = 0.0
) -> None:
    """Make the painted and virtual points of every LiDAR sweep of a root; those that are there are kept.

    Args:
        noise: Of `VirtualPointsConfig`: points of each amount lie apart.
    """
    index = NuscenesIndex.open(root, version)
    masks = _masks(index, source, weights, noise)
    cache = VirtualPointsCache.of(index, "synthetic" if source == "synthetic" else "maskrcnn", noise)
    rows = np.flatnonzero(index.data_channel == LIDAR).tolist()
    with progress(console, "completing sweeps") as say:
        made = make_virtual_points(index, rows, masks, cache, progress=_watched(say))
    console.print(f"{root}: virtual points of {made} LiDAR sweeps made, of {len(rows) - made} kept, in {cache.folder}")


def make_instances(
    console: Console,
    root: Path,
    version: str | None,
    source: str,
    weights: Path | None,
    noise: float = 0.0,
    split: str = "all",
) -> None:
    """Make the instance masks of every key frame image of a split; those that are there are kept.

    Args:
        noise: Of `InstancesConfig`: masks of each amount lie apart.
    """
    index = NuscenesIndex.open(root, version)
    rows = key_images(index, samples_of_split(index, split))
    masks = _masks(index, source, weights, noise)
    cache = MaskCache.of(index, "synthetic" if source == "synthetic" else "maskrcnn", noise)
    with progress(console, "finding instances") as say:
        made = make_masks(index, rows, masks, cache, progress=_watched(say))
    folder = cache.files.folder
    console.print(f"{root}: instance masks of {made} images made, of {len(rows) - made} kept, in {folder}")


def _masks(index: NuscenesIndex, source: str, weights: Path | None, noise: float) -> InstanceMasks:
    """Who says which objects an image shows."""
    # Imported here, for torchvision's detectors take a while and no other verb needs them.
    from dualdistill.data.virtual_points.maskrcnn import WANTED, MaskRcnn

    if source not in ("synthetic", "maskrcnn"):
        raise UserError(f"There are no masks {source!r}; choose synthetic or maskrcnn.")
    if weights is not None and source != "maskrcnn":
        raise UserError(f"--weights has no effect with --masks {source}.")
    if not 0 <= noise <= 1:
        raise UserError(f"--noise must lie between 0 and 1, got {noise:g}.")
    if noise and source != "synthetic":
        raise UserError(f"--noise has no effect with --masks {source}, which have errors of their own.")
    if source == "synthetic":
        return NoisyMasks(SyntheticMasks(index), index, noise) if noise else SyntheticMasks(index)
    if weights is None:
        raise UserError(f"--masks maskrcnn needs --weights FILE: {WANTED}.")
    return MaskRcnn(index, weights, device="cuda" if torch.cuda.is_available() else "cpu")


def _watched(say: Say) -> Callable[[Iterable[int]], Iterable[int]]:
    """A wrapper of loops that says how far they are."""

    def watched(rows: Iterable[int]) -> Iterable[int]:
        every = list(rows)
        for done, row in enumerate(every, start=1):
            yield row
            say(done, len(every))

    return watched
