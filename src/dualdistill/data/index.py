"""A nuScenes root as memory-mapped columns, without the devkit.

Columns of equal length are one Arrow IPC file, without pickles: numbers are numpy arrays of any trailing shape, texts a
`Texts`. Opening reads a header only: pages are loaded when they are accessed, and worker processes share them.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int

from dualdistill.data.build import build_columns
from dualdistill.data.tables import TABLES, find_version
from dualdistill.files import ROOM_REMEDY, cache_root, cached, read_json, require_room, write_json
from dualdistill.geometry.transforms import rigid, rotation_from_quaternion
from dualdistill.structures import CAMERAS

LAYOUT = 5
"""Version of the cached columns; a change makes every root be indexed anew."""

Position = int | np.integer
Rows = Position | Int[np.ndarray, "*rows"] | list[int]
"""One sensor record, or several."""

Progress = Callable[[Iterable[int]], Iterable[int]]
"""Wraps a loop over samples or sensor records, to show its progress."""

_DIGESTS = "digests.json"
_ROOM, _ROOM_OF_HEADERS = 0.6, 1 << 16
"""Bytes of an index: of one of the tables (nuScenes 0.38; shorter tokens more), and of all its files."""


class Texts:
    """A memory-mapped column of strings; single entries are returned as `str`."""

    def __init__(self, column: pa.Array):
        self._column = column

    def __getitem__(self, index: Position) -> str:
        return self._column[int(index)].as_py()

    def __len__(self) -> int:
        return len(self._column)

    def __iter__(self) -> Iterator[str]:
        return iter(self._column.to_pylist())


@dataclass(frozen=True, kw_only=True, eq=False)
class NuscenesIndex:
    """Contents of the tables of one nuScenes version, as columns that refer to each other by position.

    `-1` is "none" in every column of positions. Sizes are (length, width, height), times microseconds, rotations
    quaternions (w, x, y, z), lengths metres. Opened by `NuscenesIndex.open`; a copy sent to a worker process maps the
    same files.
    """

    root: Path
    version: str
    folder: Path
    """Folder of the cached columns; other artefacts derived from the same tables may be kept here."""
    digests: dict[str, str]
    """Digest of each file of the columns: what a training records of its data, to see later whether they changed."""

    scene_name: Texts
    scene_token: Texts

    sample_token: Texts
    """Key frames, scene after scene, in time order within one."""
    sample_timestamp_us: Int[np.ndarray, "samples"]
    sample_scene: Int[np.ndarray, "samples"]
    sample_prev: Int[np.ndarray, "samples"]
    sample_next: Int[np.ndarray, "samples"]
    sample_lidar: Int[np.ndarray, "samples"]
    """Row in sensor data."""
    sample_cameras: Int[np.ndarray, "samples cam"]
    """Rows in sensor data, in the order of `structures.CAMERAS`."""
    annotation_offset: Int[np.ndarray, "samples_and_one"]
    """Annotations of sample `i` are rows `annotation_offset[i]` up to `annotation_offset[i + 1]`."""

    data_filename: Texts
    """Relative to the root. Rows: records of LIDAR_TOP and the six cameras, sweeps included."""
    data_channel: Int[np.ndarray, "data"]
    """Index into `build.CHANNELS`: the cameras, then LIDAR_TOP."""
    data_sample: Int[np.ndarray, "data"]
    data_timestamp_us: Int[np.ndarray, "data"]
    data_prev: Int[np.ndarray, "data"]
    data_next: Int[np.ndarray, "data"]
    data_is_key: Bool[np.ndarray, "data"]
    data_size: Int[np.ndarray, "data 2"]
    """Height and width of images, pixels; zeros for the LiDAR."""
    data_calibration: Int[np.ndarray, "data"]
    """Row in the calibrations."""
    ego_rotation: Float[np.ndarray, "data 4"]
    """The car in the global frame at the record's own timestamp: quaternion (w, x, y, z), not normalised."""
    ego_translation: Float[np.ndarray, "data 3"]
    """The same: global position."""

    calibration_ego_from_sensor: Float[np.ndarray, "calibrations 4 4"]
    calibration_intrinsics: Float[np.ndarray, "calibrations 3 3"]
    """Camera matrices of the stored images, pixels; identity for the LiDAR."""

    annotation_token: Texts
    annotation_center: Float[np.ndarray, "boxes 3"]
    """Gravity centre, global frame."""
    annotation_size: Float[np.ndarray, "boxes 3"]
    annotation_rotation: Float[np.ndarray, "boxes 4"]
    """Quaternion (w, x, y, z), global frame."""
    annotation_velocity: Float[np.ndarray, "boxes 2"]
    """Global x and y, m/s; NaN where unknown."""
    annotation_category: Int[np.ndarray, "boxes"]
    """Index into `categories`."""
    annotation_class: Int[np.ndarray, "boxes"]
    """Index into `structures.CLASSES`; -1 for categories that are not detected."""
    annotation_attribute: Int[np.ndarray, "boxes"]
    """Index into `attributes`."""
    annotation_visibility: Int[np.ndarray, "boxes"]
    """1 (least visible) to 4; 0 where unknown."""
    annotation_lidar_points: Int[np.ndarray, "boxes"]
    annotation_radar_points: Int[np.ndarray, "boxes"]

    categories: Texts
    attributes: Texts

    def __len__(self) -> int:
        """Number of samples (key frames)."""
        return len(self.sample_token)

    @property
    def num_annotations(self) -> int:
        return len(self.annotation_class)

    def annotations(self, sample: Position) -> slice:
        """Rows of the annotations of one sample."""
        return slice(int(self.annotation_offset[sample]), int(self.annotation_offset[sample + 1]))

    def key_records(
        self, samples: Int[np.ndarray, "samples"], *, cameras: bool
    ) -> dict[str, Int[np.ndarray, "samples"]]:
        """Rows of the LiDAR's key frames, and of the cameras' if wanted, by channel; -1 where one is missing."""
        of_cameras = dict(zip(CAMERAS, self.sample_cameras[samples].T, strict=True)) if cameras else {}
        return {"LIDAR_TOP": self.sample_lidar[samples], **of_cameras}

    def path(self, row: Position) -> Path:
        """File of one sensor record."""
        return self.root / self.data_filename[row]

    def image_size(self, row: Position) -> tuple[int, int]:
        """Height and width of the image of one sensor record, pixels."""
        height, width = self.data_size[row].tolist()
        return height, width

    def intrinsics(self, rows: Rows) -> Float[np.ndarray, "*rows 3 3"]:
        """Camera matrices of sensor records, of the stored image; identity for the LiDAR."""
        return np.array(self.calibration_intrinsics[self.data_calibration[rows]])

    def ego_from_sensor(self, rows: Rows) -> Float[np.ndarray, "*rows 4 4"]:
        """Mounting of the sensors of records in the car."""
        return np.array(self.calibration_ego_from_sensor[self.data_calibration[rows]])

    def global_from_ego(self, rows: Rows) -> Float[np.ndarray, "*rows 4 4"]:
        """Pose of the car in the global frame at the moment of each record."""
        rotation = rotation_from_quaternion(torch.tensor(self.ego_rotation[rows]))
        return rigid(rotation, torch.tensor(self.ego_translation[rows])).numpy()

    def global_from_sensor(self, rows: Rows) -> Float[np.ndarray, "*rows 4 4"]:
        """Pose of the sensors in the global frame at the moment of each record."""
        return self.global_from_ego(rows) @ self.ego_from_sensor(rows)

    def __reduce__(self) -> tuple[Callable[..., "NuscenesIndex"], tuple[Path, str, Path]]:
        return type(self).load, (self.root, self.version, self.folder)

    @classmethod
    def open(cls, root: Path | str, version: str | None = None) -> "NuscenesIndex":
        """Index a nuScenes root: any version, or a cut of one.

        The columns are cached under `$DUALDISTILL_CACHE`, else `~/.cache/dualdistill`, in `index/<root>`, and
        made again when a table changed or the cache is damaged. The root itself is only read.

        Args:
            root: Folder with `samples/` and `v1.0-*/`.
            version: Such as `v1.0-mini`; may be left out where there is only one.

        Raises:
            UserError: for a root that is missing, incomplete or inconsistent: a link that leads nowhere or against
                time, a file name outside the root, a degenerate pose, camera matrix or box; for a disk without room.
        """
        root = Path(os.path.expanduser(root)).absolute()
        version = find_version(root, version)
        tables = [path for name in TABLES if (path := root / version / f"{name}.json").exists()]
        state = [(path.stem, path.stat().st_size, path.stat().st_mtime_ns) for path in tables]
        where, what = (
            hashlib.sha256(text.encode()).hexdigest()[:16] for text in (f"{root}\n{version}", repr((LAYOUT, state)))
        )
        folder = cache_root() / "index" / f"{root.name}-{where}" / what
        if not folder.is_dir():
            room = _ROOM * sum(size for _, size, _ in state) + _ROOM_OF_HEADERS
            require_room(folder, room, f"The index of {root}", ROOM_REMEDY)
        index = cached(folder, partial(cls.load, root, version), partial(_write, root / version))
        for stale in folder.parent.iterdir():
            if stale != folder:
                shutil.rmtree(stale, ignore_errors=True)
        return index

    @classmethod
    def load(cls, root: Path, version: str, folder: Path) -> "NuscenesIndex":
        """Map the columns that `open` has written to `folder`."""
        digests = read_json(folder / _DIGESTS, dict[str, str], "digests of an index")
        columns: dict[str, Any] = {}
        for name in digests:
            columns |= read_columns(folder / f"{name}.arrow")
        count = columns.pop("annotation_count")
        columns["annotation_offset"] = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])
        return cls(root=root, version=version, folder=folder, digests=digests, **columns)


def _write(version_folder: Path, target: Path) -> None:
    digests = {}
    for name, columns in build_columns(version_folder):
        path = target / f"{name}.arrow"
        write_columns(path, columns)
        del columns  # of gigabytes there should be one at a time
        with path.open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    write_json(target / _DIGESTS, digests)


def write_columns(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns of equal length to one Arrow file: numpy arrays; texts as lists or as Arrow's large strings."""
    arrays, fields = [], []
    for name, values in columns.items():
        kind = shape = ""
        if not isinstance(values, np.ndarray):
            array = pa.array(values, pa.large_string()) if isinstance(values, list) else values
        else:
            if values.dtype == bool:  # Arrow packs booleans into bits, which numpy cannot map
                values, kind = values.view(np.uint8), "bool"
            array = pa.array(np.ascontiguousarray(values).reshape(-1))
            if shape := ",".join(map(str, values.shape[1:])):
                array = pa.FixedSizeListArray.from_arrays(array, int(np.prod(values.shape[1:])))
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata={"shape": shape, "kind": kind}))
    table = pa.table(arrays, schema=pa.schema(fields))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_columns(path: Path) -> dict[str, np.ndarray | Texts]:
    """Columns of one Arrow file, memory-mapped and read-only."""
    table = pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()
    columns: dict[str, np.ndarray | Texts] = {}
    for field, chunks in zip(table.schema, table.columns, strict=True):
        # An empty table has no batch, and so no chunk.
        array = chunks.chunk(0) if chunks.num_chunks else pa.array([], type=field.type)
        if pa.types.is_large_string(field.type):
            columns[field.name] = Texts(array)
            continue
        shape = [int(size) for size in field.metadata[b"shape"].decode().split(",") if size]
        values = array.flatten() if shape else array
        numbers = values.to_numpy(zero_copy_only=True).reshape(len(array), *shape)
        columns[field.name] = numbers.view(np.bool_) if field.metadata[b"kind"] == b"bool" else numbers
    return columns
