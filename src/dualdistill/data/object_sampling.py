"""Copy-paste of objects between LiDAR scenes ("GT sampling"), for teachers
(docs/methods/centerpoint.md#object-sampling).

Differs from the released code: which objects are pasted is drawn anew for each sample instead of taken from a
ring that every worker shuffles for itself, so a sample depends on seed, epoch and item alone.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dualdistill.data.config import ObjectSampling
from dualdistill.data.index import NuscenesIndex, Progress, read_columns, write_columns
from dualdistill.data.splits import sample_boxes
from dualdistill.data.sweeps import accumulate, choose_sweeps
from dualdistill.data.virtual_points.clouds import VirtualClouds
from dualdistill.files import ROOM_REMEDY, cached, require_room_for_rest
from dualdistill.geometry.boxes import footprints, points_in_boxes
from dualdistill.ops.rotated_iou import rotated_iou
from dualdistill.structures import CLASSES, Boxes

_COLUMNS = ("label", "center", "size", "yaw", "velocity")
"""Columns of a database that are fields of `Boxes`."""

CHANNELS = 5
"""Channels of plain LiDAR points; virtual points have more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectDatabase:
    """Annotated objects with the LiDAR points inside them, each in the LIDAR_TOP frame of its key frame."""

    folder: Path
    """Its files; a copy sent to a worker process maps them again."""
    label: Int[np.ndarray, "objects"]
    center: Float[np.ndarray, "objects 3"]
    size: Float[np.ndarray, "objects 3"]
    yaw: Float[np.ndarray, "objects"]
    velocity: Float[np.ndarray, "objects 2"]
    offset: Int[np.ndarray, "objects_and_one"]
    """Points of object `i` are rows `offset[i]` up to `offset[i + 1]`."""
    points: Float[np.ndarray, "points chan"]
    """x, y, z relative to the box centre; then what the clouds hold: intensity, time lag, or a `virtual_points`
    layout."""

    def __len__(self) -> int:
        return len(self.label)

    @classmethod
    def open(
        cls,
        index: NuscenesIndex,
        positions: Int[np.ndarray, "samples"],
        num_sweeps: int,
        progress: Progress = iter,
        clouds: VirtualClouds | None = None,
    ) -> "ObjectDatabase":
        """The objects of some samples, kept beside the index; gathered first if that was never done.

        Gathering reads every sweep of these samples: seconds for a few, an hour or more for the full train
        split.

        Args:
            positions: Training samples; repetitions count once.
            num_sweeps: Sweeps accumulated, the key frame's included.
            clouds: If given, objects keep their painted and virtual points.
        """
        positions = np.unique(positions)
        made_of = (num_sweeps, CHANNELS) if clouds is None else (num_sweeps, clouds.identity)
        what = hashlib.sha256(repr(made_of).encode() + positions.astype("<i8").tobytes())

        def write(target: Path) -> None:
            gathered: list[Boxes] = []
            counts: list[Tensor] = []
            with (target / "points.f32").open("wb") as file:
                for position in progress(positions.tolist()):
                    boxes, cuts = _objects_of(index, position, num_sweeps, clouds)
                    gathered.append(boxes)
                    counts.append(torch.tensor([len(cut) for cut in cuts], dtype=torch.int64))
                    file.writelines(cut.numpy().tobytes() for cut in cuts)
                    done = len(gathered)
                    require_room_for_rest(target, done, len(positions), file.tell(), "Objects of samples", ROOM_REMEDY)
            objects = Boxes.concatenate(gathered)
            columns = {name: getattr(objects, name).numpy() for name in _COLUMNS}
            write_columns(target / "objects.arrow", columns | {"count": torch.cat(counts).numpy()})

        return cached(index.folder / f"objects-{what.hexdigest()[:16]}", cls.load, write)

    @classmethod
    def load(cls, folder: Path) -> "ObjectDatabase":
        """Map what `open` has gathered in `folder`."""
        columns = read_columns(folder / "objects.arrow")
        count = np.asarray(columns.pop("count"))
        offset = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])
        points = np.empty((0, CHANNELS), np.float32)
        if offset[-1]:  # an empty file cannot be mapped
            points = np.memmap(folder / "points.f32", dtype=np.float32, mode="r").reshape(int(offset[-1]), -1)
        return cls(folder=folder, offset=offset, points=points, **columns)  # type: ignore[arg-type]

    def __reduce__(self) -> tuple[Callable[[Path], "ObjectDatabase"], tuple[Path]]:
        return type(self).load, (self.folder,)

    def boxes(self, rows: Int[np.ndarray, "chosen"]) -> Boxes:
        return Boxes(**{name: torch.from_numpy(getattr(self, name)[rows]) for name in _COLUMNS})

    def points_of(self, row: int) -> Float[Tensor, "points chan"]:
        """Points of one object where they were in its own scene."""
        points = torch.from_numpy(np.array(self.points[self.offset[row] : self.offset[row + 1]]))
        points[:, :3] += torch.from_numpy(self.center[row].copy()).float()
        return points


def _objects_of(
    index: NuscenesIndex, position: int, num_sweeps: int, clouds: VirtualClouds | None
) -> tuple[Boxes, list[Float[Tensor, "points chan"]]]:
    """The objects of a sample with at least one point, and the points of each relative to its centre."""
    key_row = int(index.sample_lidar[position])
    boxes = sample_boxes(index, position, torch.from_numpy(np.linalg.inv(index.global_from_sensor(key_row))))
    rows = choose_sweeps(index, key_row, num_sweeps)
    points = accumulate(index, key_row, rows) if clouds is None else clouds.accumulate(key_row, rows)
    held = points_in_boxes(points[:, :3], boxes)
    boxes, held = boxes.select(held.any(dim=1)), held[held.any(dim=1)]
    cuts = [points[mask] for mask in held]
    for cut, center in zip(cuts, boxes.center, strict=True):
        cut[:, :3] -= center.float()
    return boxes, cuts


class ObjectSampler:
    """Fills a frame up with objects of other frames until each class has its number."""

    def __init__(self, database: ObjectDatabase, config: ObjectSampling):
        self.database = database
        self.config = config
        enough = np.diff(database.offset) >= config.min_points
        self.rows_of_class = [np.flatnonzero(enough & (database.label == label)) for label in range(len(CLASSES))]

    def __call__(
        self, points: Float[Tensor, "points chan"], boxes: Boxes, generator: np.random.Generator
    ) -> tuple[Float[Tensor, "more_points chan"], Boxes]:
        """Points and boxes (LIDAR_TOP frame) with objects pasted where nothing stands, new points first."""
        present = np.bincount(boxes.label.numpy(), minlength=len(CLASSES))
        standing, chosen = boxes, list[int]()
        for label, rows in enumerate(self.rows_of_class):
            missing = min(self.config.counts[label] - int(present[label]), len(rows))
            if missing <= 0:
                continue
            candidates = generator.choice(rows, missing, replace=False)
            fitting = candidates[without_collisions(standing, self.database.boxes(candidates)).numpy()]
            standing = Boxes.concatenate([standing, self.database.boxes(fitting)])
            chosen += fitting.tolist()
        if self.config.clear_inside and chosen:
            pasted = standing.select(slice(len(boxes), None))
            points = points[~points_in_boxes(points[:, :3], pasted).any(dim=0)]
        return torch.cat([*map(self.database.points_of, chosen), points]), standing


def without_collisions(standing: Boxes, candidates: Boxes) -> Bool[Tensor, "candidates"]:
    """Which candidates may stay: one after the other, each goes that overlaps anything still there.

    Later candidates count as there.
    """
    rectangles = torch.cat([footprints(standing), footprints(candidates)])
    overlap = rotated_iou(footprints(candidates), rectangles) > 0
    overlap[:, len(standing) :].fill_diagonal_(False)  # each with itself
    alive = torch.ones(len(rectangles), dtype=torch.bool)
    for number, overlaps in enumerate(overlap, start=len(standing)):
        alive[number] = not (overlaps & alive).any()
    return alive[len(standing) :]
