"""Writes a synthetic world to disk, once."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dualdistill.data.build import CATEGORIES
from dualdistill.data.splits import official_splits
from dualdistill.data.tables import Attribute, Category, Log, Map, Record, Sensor, TableWriter, Visibility
from dualdistill.errors import UserError
from dualdistill.files import read_json
from dualdistill.structures import CAMERAS
from dualdistill.synthetic.config import SyntheticConfig
from dualdistill.synthetic.raycast import require_embree
from dualdistill.synthetic.scene import Job, PlayedScene, play_scene, token

GENERATOR_VERSION = 1
"""Raised whenever the same config gives other values; how tables are laid out does not count."""
_FIRST_FREE_SCENE = 2000
"""nuScenes numbers its scenes up to 1110."""
VERSION = "v1.0-trainval"
MAP_FILE = "maps/synthetic.png"

ATTRIBUTES = (
    *("vehicle.moving", "vehicle.stopped", "vehicle.parked", "cycle.with_rider", "cycle.without_rider"),
    *("pedestrian.sitting_lying_down", "pedestrian.standing", "pedestrian.moving"),
)
VISIBILITY = ("v0-40", "v40-60", "v60-80", "v80-100")
_STAMP, _UNFINISHED = "synthetic.json", "synthetic.unfinished"
_FOLDERS = ("samples", "sweeps", "maps", "masks", VERSION)

Progress = Callable[[int, int], None]
"""Called with (scenes done, all scenes) after every scene."""


def make_synthetic(root: Path, config: SyntheticConfig, *, workers: int = 2, progress: Progress | None = None) -> Path:
    """Writes a driving world in nuScenes v1.0-trainval layout below `root`, and returns `root`.

    Besides the 13 tables, `masks/` holds an 8-bit PNG for every key frame image, whose values
    `masks/instance_masks.json` explains: a list of {sample_token, sample_data_token, filename, instances: [{value,
    instance_token, category, pixels}]}. Value 0 is no instance; the token is empty for one never annotated.

    `synthetic.json`, written last, describes the origin of the root; a root that already holds `config` is left as it
    is, an unfinished one is redone. Equal configs give equal bytes, however many `workers` (processes). A world of more
    scenes than nuScenes has names its splits in a `splits.json` of its own. Raises UserError if `root` holds anything
    else, or embreex (extra `synthetic`) is not installed.
    """
    names = scene_names(config)
    jobs: list[Job] = [(config, split, i, name, root) for split in names for i, name in enumerate(names[split])]
    if not _prepare(root, config):
        return root
    scenes = []
    for scene in _played(jobs, workers):
        scenes.append(scene)
        if progress is not None:
            progress(len(scenes), len(jobs))
    Image.fromarray(np.full((64, 64), 255, dtype=np.uint8)).save(root / MAP_FILE)
    _write_tables(root, (record for records, _ in scenes for record in records), config.seed)
    masks = [mask for _, scene_masks in scenes for mask in scene_masks]
    (root / "masks" / "instance_masks.json").write_text(json.dumps(masks, indent=0) + "\n")
    if not set(names["train"] + names["val"]) <= set(official_splits()["train"] + official_splits()["val"]):
        (root / VERSION / "splits.json").write_text(json.dumps(names) + "\n")
    (root / _STAMP).write_text(json.dumps(_stamp(config), indent=1) + "\n")
    (root / _UNFINISHED).unlink()
    return root


def _write_tables(root: Path, records: Iterable[Record], seed: int) -> None:
    """Writes `VERSION`/*.json: the records of all scenes, and those that they share."""
    logs = []
    with TableWriter(root / VERSION) as tables:
        for name in CATEGORIES:
            tables.write(Category(token=token(seed, "category", name), name=name, description=""))
        for name in ATTRIBUTES:
            tables.write(Attribute(token=token(seed, "attribute", name), name=name, description=""))
        for number, level in enumerate(VISIBILITY, start=1):
            low, high = level.removeprefix("v").split("-")
            text = f"visibility of whole object is between {low} and {high}%"
            tables.write(Visibility(token=str(number), level=level, description=text))
        for channel in (*CAMERAS, "LIDAR_TOP"):
            modality = "lidar" if channel == "LIDAR_TOP" else "camera"
            tables.write(Sensor(token=token(seed, "sensor", channel), channel=channel, modality=modality))
        for record in records:
            tables.write(record)
            if isinstance(record, Log):
                logs.append(record.token)
        shared = token(seed, "map")
        tables.write(Map(category="semantic_prior", token=shared, filename=MAP_FILE, log_tokens=logs))


def scene_names(config: SyntheticConfig) -> dict[str, tuple[str, ...]]:
    """Names of the scenes of each split: the first of the official lists, then numbers that nuScenes does not use."""
    names, free = {}, _FIRST_FREE_SCENE
    for split, count in (("train", config.train_scenes), ("val", config.val_scenes)):
        official = official_splits()[split][:count]
        more = tuple(f"scene-{number:04d}" for number in range(free, free + count - len(official)))
        names[split] = official + more
        free += len(more)
    return names


def _stamp(config: SyntheticConfig) -> dict[str, object]:
    return {"generator_version": GENERATOR_VERSION, "config": asdict(config)}


def _prepare(root: Path, config: SyntheticConfig) -> bool:
    """Makes an empty folder structure; False if the world is already there."""
    stamp = root / _STAMP
    if stamp.is_file() and not (root / _UNFINISHED).exists():
        found = read_json(stamp, dict[str, Any], "the origin of a synthetic world")
        found["config"] = asdict(SyntheticConfig()) | found.get("config", {})  # an older root lacks newer settings
        if found == _stamp(config):
            return False
        raise UserError(
            f"expected an empty folder or the synthetic world {config.name!r} (seed {config.seed}), but "
            f"{root} holds one made from another configuration (see {stamp}). Delete it, or choose another."
        )
    if root.exists() and not root.is_dir():
        raise UserError(f"expected a folder for the synthetic world, but {root} is a file. Choose another path.")
    if root.is_dir() and any(root.iterdir()) and not (root / _UNFINISHED).exists():
        raise UserError(
            f"expected an empty folder for the synthetic world, but {root} holds files that did not come "
            "from here. Choose another folder."
        )
    require_embree()
    root.mkdir(parents=True, exist_ok=True)
    (root / _UNFINISHED).touch()
    stamp.unlink(missing_ok=True)
    for folder in _FOLDERS:
        shutil.rmtree(root / folder, ignore_errors=True)
    for channel in (*CAMERAS, "LIDAR_TOP"):
        for folder in ("samples", "sweeps", "masks"):
            if (folder, channel) != ("masks", "LIDAR_TOP"):
                (root / folder / channel).mkdir(parents=True)
    (root / "maps").mkdir()
    return True


def _played(jobs: list[Job], workers: int) -> Iterator[PlayedScene]:
    """The scenes in the order of the jobs."""
    if workers <= 1 or len(jobs) <= 1:
        yield from map(play_scene, jobs)
        return
    # Not fork: the parent may hold threads of PyTorch or embree.
    with _single_threaded_children():
        pool = multiprocessing.get_context("spawn").Pool(min(workers, len(jobs)))
    with pool:
        yield from pool.imap(play_scene, jobs)


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Processes started inside run NumPy on one thread: scenes share the cores, matrix products need not."""
    before = dict(os.environ)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
