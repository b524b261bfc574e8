"""Check of the files and tables of a root before time is spent on it."""

import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from dualdistill.data.build import CATEGORIES, LIDAR
from dualdistill.data.config import DataConfig
from dualdistill.data.index import NuscenesIndex, Progress
from dualdistill.data.instances import making_masks, missing_masks
from dualdistill.data.plausible import (
    BYTES_PER_POINT,
    FARTHEST_BOX,
    FASTEST_CAR,
    FASTEST_OBJECT,
    LARGEST_BOX,
    implausible_points,
)
from dualdistill.data.splits import samples_of_split, usable
from dualdistill.data.sweeps import reachable_records, sweep_candidates
from dualdistill.errors import UserError
from dualdistill.files import read_bytes
from dualdistill.structures import CAMERAS, CLASSES

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"

THREADS = 8
"""Most of the time is spent waiting for the disk."""

READ_FILES = 64
"""LiDAR files, spread evenly, whose points are read; of all others the size is checked."""
SAMPLED = 16
"""Samples whose files stand for those of a root."""


@dataclass(frozen=True)
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
    progress: Progress = iter,
) -> RootReport:
    """Check every file that samples of a split may need: see `file_problems`.

    Args:
        config: What will be read; the default reads cameras, an earlier frame and ten sweeps.

    Raises:
        UserError: if the tables themselves cannot be used.
    """
    config = config or DataConfig()
    index = NuscenesIndex.open(root, version)
    positions = samples_of_split(index, split)
    boxes = _boxes(index, positions)
    count = np.bincount(index.annotation_class[boxes[usable(index)[boxes]]], minlength=len(CLASSES))
    rows = needed_records(index, positions, config)
    found = table_problems(index, positions, np.array(rows, dtype=np.int64), config)
    if config.instances is not None and (missing := missing_masks(index, config.instances, positions)[0]):
        making = making_masks(index, config.instances) + ("" if split == "all" else f" --split {split}")
        what = "key frame images without instance masks"
        found.append(Problem(what, len(missing), missing[0], f"run `{making}`"))
    num_bytes, of_files = file_problems(index, rows, progress)
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
        problems=(*found, *of_files),
    )


def sampled_problems(index: NuscenesIndex) -> Iterator[Problem]:
    """What is wrong with all tables, and with the files of some samples, spread evenly."""
    config, every = DataConfig(), np.arange(len(index))
    yield from table_problems(index, every, np.arange(len(index.data_channel)), config)
    some = np.unique(np.linspace(0, len(every) - 1, SAMPLED).astype(np.int64))
    yield from file_problems(index, needed_records(index, some, config))[1]


def file_problems(index: NuscenesIndex, rows: list[int], progress: Progress = iter) -> tuple[int, list[Problem]]:
    """Bytes of the files of sensor records, and what is wrong with their existence, size, beginning and end, with the
    size of images, and with the points of `READ_FILES` LiDAR files."""
    clouds = [row for row in rows if index.data_channel[row] == LIDAR]
    read = set(clouds[:: max(1, len(clouds) // READ_FILES)])
    num_bytes, complaints = 0, []
    with ThreadPoolExecutor(THREADS) as pool:
        # The pool runs ahead of the loop; the loop shows what is done.
        looks = pool.map(lambda row: _look(index, row, whole=row in read), rows)
        for row, (size, complaint) in zip(progress(rows), looks, strict=True):
            num_bytes += size
            if complaint is not None:
                complaints.append((*complaint, index.data_filename[row]))
    return num_bytes, _grouped(complaints)


def table_problems(index: NuscenesIndex, positions: np.ndarray, rows: np.ndarray, config: DataConfig) -> list[Problem]:
    """What is wrong with the tables of samples and of sensor records that may be read, without a look at files."""
    checks = [
        *_sensor_checks(index, positions, config),
        *_box_checks(index, _boxes(index, positions)),
        _pose_check(index, rows),
        _training_check(index, positions),
    ]
    return [Problem(what, len(bad), name(int(bad[0])), remedy) for bad, what, remedy, name in checks if len(bad)]


def _boxes(index: NuscenesIndex, positions: np.ndarray) -> np.ndarray:
    return np.concatenate([np.arange(index.num_annotations)[index.annotations(int(i))] for i in positions])


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


Check = tuple[np.ndarray, str, str, Callable[[int], str]]
"""Rows that have a problem, the problem, its remedy, and the name of a row."""


def _sensor_checks(index: NuscenesIndex, positions: np.ndarray, config: DataConfig) -> Iterator[Check]:
    """Samples without a sensor or a sweep that the config reads."""
    token = index.sample_token.__getitem__
    remedy = "complete sample_data.json, or leave these scenes out of the split"
    for sensor, rows in index.key_records(positions, cameras=config.cameras).items():
        yield positions[rows < 0], f"samples without {sensor}", remedy, token
    lidar = index.sample_lidar[positions]
    if config.points and config.num_sweeps > 1 and len(lidar) > 1 and (lidar >= 0).all():
        alone = positions if (index.data_prev[lidar] < 0).all() else positions[:0]
        what = f"samples without an earlier LiDAR sweep, of which {config.num_sweeps - 1} are wanted"
        remedy = "unpack the sweeps and link them by prev in sample_data.json, or set data.num_sweeps=1"
        yield alone, what, remedy, token


def _box_checks(index: NuscenesIndex, boxes: np.ndarray) -> Iterator[Check]:
    """Implausible boxes, and those of categories that nuScenes does not have."""

    def name(box: int) -> str:
        return f"{index.annotation_token[box]} ({index.categories[index.annotation_category[box]]})"

    foreign = [number for number, category in enumerate(index.categories) if category not in CATEGORIES]
    what = "boxes of categories that nuScenes does not have"
    remedy = "rename the categories in category.json (docs/data.md has the list), or remove their boxes"
    yield boxes[np.isin(index.annotation_category[boxes], foreign)], what, remedy, name
    speed = np.linalg.norm(index.annotation_velocity[boxes], axis=1)  # an unknown (NaN) velocity is no problem
    remedy = "look at the prev and next links and the timestamps of these records"
    yield boxes[speed > FASTEST_OBJECT], f"boxes faster than {FASTEST_OBJECT:g} m/s", remedy, name
    large = (index.annotation_size[boxes] > LARGEST_BOX).any(axis=1)
    remedy = "correct their size (metres) in sample_annotation.json"
    yield boxes[large], f"boxes longer than {LARGEST_BOX:g} m", remedy, name
    lidar = index.sample_lidar[np.searchsorted(index.annotation_offset, boxes, side="right") - 1]
    boxes, lidar = boxes[lidar >= 0], lidar[lidar >= 0]
    far = np.linalg.norm(index.annotation_center[boxes] - index.ego_translation[lidar], axis=1) > FARTHEST_BOX
    remedy = "correct their translation (global frame, metres), or the ego poses of their samples"
    yield boxes[far], f"boxes more than {FARTHEST_BOX:g} m from the car", remedy, name


def _pose_check(index: NuscenesIndex, now: np.ndarray) -> Check:
    """Ego poses that jump between two records of one sensor."""
    before = index.data_prev[now]
    now, before = now[before >= 0], before[before >= 0]
    seconds = (index.data_timestamp_us[now] - index.data_timestamp_us[before]) * 1e-6
    metres = np.linalg.norm(index.ego_translation[now] - index.ego_translation[before], axis=1)
    what = f"ego poses that jump: the car would be faster than {FASTEST_CAR:g} m/s"
    remedy = "correct ego_pose.json, or the timestamps of sample_data.json"
    return now[metres > FASTEST_CAR * seconds + 1], what, remedy, index.data_filename.__getitem__


def _training_check(index: NuscenesIndex, positions: np.ndarray) -> Check:
    """Samples of which none has a box to train on, unless they are the official test split's."""
    boxes = _boxes(index, positions)
    fine = usable(index)[boxes].any() or index.version.endswith("test")
    what = "no box of a detection class that has LiDAR or radar points"
    remedy = "choose another split, or complete num_lidar_pts and the categories of sample_annotation.json"
    return positions[:0] if fine else positions, what, remedy, index.sample_token.__getitem__


def _look(index: NuscenesIndex, row: int, *, whole: bool) -> tuple[int, tuple[str, str] | None]:
    """Size of a file and what is wrong with it: (problem, remedy), or None.

    Args:
        whole: Read the points of a LiDAR file.
    """
    path = index.path(row)
    unpack = "unpack the archive with this folder again"
    try:
        status = path.stat()
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            return 0, ("no regular file", unpack)
        if index.data_channel[row] == LIDAR:
            if size == 0 or size % BYTES_PER_POINT:
                return size, (f"empty, or not a multiple of {BYTES_PER_POINT} bytes", unpack)
            found = implausible_points(read_bytes(path)) if whole else None
            return size, None if found is None else (found, "give points as float32: x, y, z, intensity, ring")
        with path.open("rb") as file:
            start = file.read(2)
            file.seek(-min(size, 2), 2)
            end = file.read(2)
        with Image.open(path) as image:
            stored = (image.height, image.width)
    except FileNotFoundError:
        return 0, ("missing", unpack)
    except (OSError, UserError, ValueError, Image.DecompressionBombError) as error:
        return 0, (f"unreadable ({type(error).__name__})", unpack)
    if path.suffix in (".jpg", ".jpeg") and (start, end) != (JPEG_START, JPEG_END):
        return size, ("cut off", unpack)
    height, width = index.image_size(row)
    if stored != (height, width):
        return size, (f"not {width}x{height} pixels, as in sample_data.json", "take files and tables of one origin")
    return size, None


def _grouped(complaints: list[tuple[str, str, str]]) -> list[Problem]:
    """One problem per folder and kind, in order of appearance."""
    kinds: dict[tuple[str, str, str], list[str]] = {}
    for what, remedy, filename in complaints:
        kinds.setdefault((str(PurePosixPath(filename).parent), what, remedy), []).append(filename)
    return [
        Problem(f"files in {folder}: {what}", len(names), names[0], remedy)
        for (folder, what, remedy), names in kinds.items()
    ]
