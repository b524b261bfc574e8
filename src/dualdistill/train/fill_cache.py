"""`train --teacher-cache`: what may be cached, how much room it takes, and filling it before the first step."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from rich.console import Console
from torch.utils.data import DataLoader

from dualdistill.data.collate import pack
from dualdistill.data.config import BevAugmentation, DataConfig
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.plain import to_plain
from dualdistill.files import size_text
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.report.progress import progress
from dualdistill.structures import BevOutput
from dualdistill.train.teacher_source import CachedTeacher, Flip, LiveTeacher, TeacherCache

_BATCH = 4
"""Samples of a forward pass while a cache is filled."""


def refuse_uncacheable(experiment: Experiment) -> None:
    """Raises UserError, with the settings to change, where the teacher's output for a sample is not one of a few."""
    data, ranges = experiment.data, experiment.data.bev_augmentation
    if experiment.distiller is None:
        raise UserError("--teacher-cache has no effect: this recipe does not distil.")
    sets = []
    if any(ranges.rotation):
        sets.append("data.bev_augmentation.rotation=0,0")
    if tuple(ranges.scale) != (1.0, 1.0):
        sets.append("data.bev_augmentation.scale=1,1")
    if ranges.translation_sd:
        sets.append("data.bev_augmentation.translation_sd=0")
    if data.random_sweeps:
        sets.append("data.random_sweeps=false")
    if sets:
        raise UserError(
            "This recipe's teacher gets another scene each epoch (rotated, scaled, moved, or of other sweeps): "
            "there is nothing to cache. Train without --teacher-cache, or change the recipe (and its result) with\n  "
            + " ".join(f"--set {each}" for each in sets)
            + "\nFlips may stay: each has its own file in the cache."
        )


def flips_drawn(ranges: BevAugmentation) -> list[Flip]:
    """The flips that a training can meet."""
    choices = [
        [flip for flip, possible in ((False, p < 1), (True, p > 0)) if possible] for p in (ranges.flip_x, ranges.flip_y)
    ]
    return [(x, y) for x in choices[0] for y in choices[1]]


def open_cache(
    console: Console,
    fabric: Fabric,
    root: Path,
    experiment: Experiment,
    index: NuscenesIndex,
    split: str,
    teacher: CenterPoint,
    teacher_sha256: str,
    *,
    workers: int,
) -> CachedTeacher:
    """The complete cache of a training as its teacher source: prints how large it is, then fills what is missing.

    All processes call it together: each fills its share, on its device. Raises UserError if this experiment's teacher
    cannot be cached, or the disk is too small.
    """
    refuse_uncacheable(experiment)
    positions = samples_of_split(index, split)
    tokens = [index.sample_token[int(position)] for position in positions]
    flips = flips_drawn(experiment.data.bev_augmentation)
    datasets = {
        flip: NuscenesDataset(index, _teacher_data(experiment.data, flip), positions, training=True, seed=0)
        for flip in flips
    }
    device = fabric.device
    live = LiveTeacher(teacher, experiment.training.teacher_precision).to(device)
    example = live(datasets[flips[0]][0, 0].to(device))
    cache = TeacherCache.under(
        root,
        _identity(experiment, index, teacher_sha256),
        example,
        cached_maps(experiment, example),
        experiment.training.cache_precision,
    )
    each = cache.bytes_of_one(example)
    missing = {flip: [i for i, token in enumerate(tokens) if not cache.holds(token, flip)] for flip in flips}
    count = sum(map(len, missing.values()))
    console.print(
        f"teacher cache {cache.folder}: {len(tokens)} samples x {len(flips)} flips x {size_text(each)} = "
        f"{size_text(len(tokens) * len(flips) * each)}, {size_text(count * each)} of it to be made"
    )
    cache.require_room(count, each)
    source = CachedTeacher(teacher.head, cache)
    # By number, not by place in the list: processes that look later miss fewer.
    rank, world = fabric.global_rank, fabric.world_size
    shares = {flip: [i for i in items if i % world == rank] for flip, items in missing.items()}
    done = 0
    with progress(console, "filling the teacher cache") as report:
        for flip, items in shares.items():
            if not items:
                continue  # PyTorch warns of a loader of nothing
            batches = still_missing(cache, tokens, flip, items)
            for packed in DataLoader(datasets[flip], batch_sampler=batches, collate_fn=pack, num_workers=workers):
                batch = packed.to(device)
                cache.write(batch, live(batch))
                done += len(batch)
                report(done, sum(map(len, shares.values())))
    fabric.barrier()
    return source


def still_missing(
    cache: TeacherCache, tokens: list[str], flip: Flip, items: list[int]
) -> Iterator[list[tuple[int, int]]]:
    """Batches of `items` that are still missing when their turn comes: trainings that start side by side share the
    work, each beginning elsewhere."""
    first = random.SystemRandom().randrange(len(items))
    items = items[first:] + items[:first]
    for start in range(0, len(items), _BATCH):
        if batch := [(0, i) for i in items[start : start + _BATCH] if not cache.holds(tokens[i], flip)]:
            yield batch


def _teacher_data(data: DataConfig, flip: Flip) -> DataConfig:
    """Data of the teacher's input under one flip."""
    fixed = BevAugmentation(rotation=(0.0, 0.0), scale=(1.0, 1.0), flip_x=float(flip[0]), flip_y=float(flip[1]))
    blind = replace(data, cameras=False, depth=False, depth_instance=False, instances=None)
    return replace(blind, class_balanced=False, bev_augmentation=fixed)


def _identity(experiment: Experiment, index: NuscenesIndex, teacher_sha256: str) -> dict[str, Any]:
    """Everything the teacher's output depends on."""
    data = to_plain(experiment)["data"]
    return {
        "teacher": teacher_sha256,
        "teacher_precision": experiment.training.teacher_precision,
        "tables": [str(index.root), index.version, index.folder.name],
        **{name: data[name] for name in ("bev_frame", "num_sweeps", "point_range", "virtual_points")},
    }


def cached_maps(experiment: Experiment, output: BevOutput) -> tuple[str, ...]:
    """The maps of the teacher that a cache keeps.

    The coarse stages and the neck always, so that most distillers share one cache; the canvas and the finest stage,
    most of the bytes, only where the distiller requires them.
    """
    every = ("canvas", *(f"stage{number}" for number in range(len(output.stages))), "neck")
    assert experiment.distiller is not None
    required = experiment.distiller.requires.teacher_maps
    return every if required is None else tuple(name for name in every if name in (*every[2:], *required))
