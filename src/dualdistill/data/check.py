"""Check of the files and tables of a root before time is spent on it."""

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from dualdistill.data.annotations import usable
from dualdistill.data.config import DataConfig
from dualdistill.data.frames import reachable_records
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.instances import making_masks, missing_masks
from dualdistill.data.splits import samples_of_split
from dualdistill.data.sweeps import BYTES_PER_POINT, sweep_candidates
from dualdistill.structures import CAMERAS, CLASSES

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"

THREADS = 8
"""Most of the time is spent waiting for the disk."""

IMPLAUSIBLE_SPEED = 60.0
"""Metres a second: annotated objects are slower."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One kind of problem, however many files have it."""

    what: str
    count: int
    example: str
    """The first file or record that has it."""
    remedy: str


@dataclass(frozen=True, kw_only=True)
class RootReport:
    """Result of `check_root`."""

    root: Path
    version: str
    split: str
    num_scenes: int
    num_samples: int
    num_annotations: int
    """Annotations of all categories, also of those that no detection class covers."""
    boxes_of_class: dict[str, int]
    """Those that can train or count: with at least one point."""
    num_files: int
    num_bytes: int
    """Total size of the sensor files found."""
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def check_root(
    root: Path | str,
    version: str | None = None,
    split: str = "all",
    config: DataConfig | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> RootReport:
    """Check every file that samples of a split may need: existence, size, beginning and end.

    Args:
        config: What will be read; the default reads cameras, an earlier frame and ten sweeps.
        progress: Wraps the loop over files, to show its progress.

    Raises:
        UserError: if the tables themselves cannot be used.
    """
    config = config or DataConfig()
    index = NuscenesIndex.open(root, version)
    positions = samples_of_split(index, split)
    boxes = np.concatenate([np.arange(index.num_annotations)[index.annotations(int(i))] for i in positions])
    trains = boxes[usable(index)[boxes]]
    count = np.bincount(index.annotation_class[trains], minlength=len(CLASSES))
    rows = needed_records(index, positions, config)
    found = [*_table_problems(index, positions, boxes, config), *_mask_problems(index, positions, config, split)]
    num_bytes, complaints = 0, []
    with ThreadPoolExecutor(THREADS) as pool:
        # The pool runs ahead of the loop; the loop shows what is done.
        looks = pool.map(lambda row: _look(index, row), rows)
        for row, (size, complaint) in zip(progress(rows), looks, strict=True):
            num_bytes += size
            if complaint is not None:
                complaints.append((*complaint, index.data_filename[row]))
    return RootReport(
        root=index.root,
        version=index.version,
        split=split,
        num_scenes=len(np.unique(index.sample_scene[positions])),
        num_samples=len(positions),
        num_annotations=len(boxes),
        boxes_of_class={name: int(number) for name, number in zip(CLASSES, count, strict=True)},
        num_files=len(rows),
        num_bytes=num_bytes,
        problems=tuple(found + _grouped(complaints)),
    )


def needed_records(index: NuscenesIndex, positions: np.ndarray, config: DataConfig) -> list[int]:
    """Rows of every sensor record a data set of these samples may read, ascending."""
    rows: set[int] = set()
    for position in positions:
        lidar = int(index.sample_lidar[position])
        if lidar >= 0 and (config.points or config.depth):
            rows |= {lidar, *(sweep_candidates(index, lidar, config.num_sweeps) if config.points else [])}
        if config.cameras:
            for camera in range(len(CAMERAS)):
                rows.update(reachable_records(index, int(position), camera, config))
    return sorted(rows)


def _table_problems(
    index: NuscenesIndex, positions: np.ndarray, boxes: np.ndarray, config: DataConfig
) -> Iterable[Problem]:
    """Samples without a sensor, and boxes nobody can believe."""
    remedy = "complete sample_data.json, or leave these scenes out of the split"
    sensors = {"LIDAR_TOP": index.sample_lidar[positions]}
    if config.cameras:
        sensors |= {name: index.sample_cameras[positions, camera] for camera, name in enumerate(CAMERAS)}
    for sensor, rows in sensors.items():
        if (rows < 0).any():
            lacking = positions[rows < 0]
            token = index.sample_token[int(lacking[0])]
            yield Problem(what=f"samples without {sensor}", count=len(lacking), example=token, remedy=remedy)
    speed = np.linalg.norm(index.annotation_velocity[boxes], axis=1)
    fast = boxes[speed > IMPLAUSIBLE_SPEED]  # an unknown (NaN) velocity is no problem
    if len(fast):
        yield Problem(
            what=f"boxes faster than {IMPLAUSIBLE_SPEED:g} m/s",
            count=len(fast),
            example=index.annotation_token[int(fast[0])],
            remedy="look at the prev and next links and the timestamps of these records",
        )


def _mask_problems(index: NuscenesIndex, positions: np.ndarray, config: DataConfig, split: str) -> Iterable[Problem]:
    """Instance masks that were not made."""
    if config.instances is None:
        return
    missing, _ = missing_masks(index, config.instances, positions)
    if missing:
        what, remedy = "key frame images without instance masks", making_masks(index, config.instances)
        remedy += "" if split == "all" else f" --split {split}"
        yield Problem(what=what, count=len(missing), example=missing[0], remedy=f"run `{remedy}`")


def _look(index: NuscenesIndex, row: int) -> tuple[int, tuple[str, str] | None]:
    """Size of a file and what is wrong with it: (problem, remedy), or None."""
    path = index.path(row)
    unpack = "unpack the archive with this folder again"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if path.suffix == ".bin":
                if size == 0 or size % BYTES_PER_POINT:
                    return size, (f"empty, or not a multiple of {BYTES_PER_POINT} bytes", unpack)
                return size, None
            start = file.read(2)
            file.seek(-min(size, 2), 2)
            end = file.read(2)
        with Image.open(path) as image:
            stored = (image.height, image.width)
    except FileNotFoundError:
        return 0, ("missing", unpack)
    except OSError as error:
        return 0, (f"unreadable ({type(error).__name__})", unpack)
    if path.suffix in (".jpg", ".jpeg") and (start, end) != (JPEG_START, JPEG_END):
        return size, ("cut off", unpack)
    height, width = (int(side) for side in index.data_size[row])
    if stored != (height, width):
        complaint = f"not {width}x{height} pixels, as sample_data.json says"
        return size, (complaint, "take files and tables of one origin")
    return size, None


def _grouped(complaints: list[tuple[str, str, str]]) -> list[Problem]:
    """One problem per folder and kind, in order of appearance."""
    kinds: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], str] = {}
    for what, remedy, filename in complaints:
        kind = (str(PurePosixPath(filename).parent), what, remedy)
        kinds[kind] += 1
        examples.setdefault(kind, filename)
    return [
        Problem(what=f"files in {kind[0]}: {kind[1]}", count=count, example=examples[kind], remedy=kind[2])
        for kind, count in kinds.items()
    ]
