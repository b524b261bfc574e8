"""A nuScenes root's tables from typed records: for the synthetic world, for benchmarks, and for data of one's own.

A root that this package can read needs, beside the sensor files, at least these records:

- one `Scene` for each drive, and one `Sample` for each of its annotated moments (key frames);
- one `Sensor` for each channel: the six `structures.CAMERAS` and `LIDAR_TOP`; and one `CalibratedSensor` for each
  mounting of it on a car;
- one `SampleData` for each file (`*.jpg` or `*.png`; LiDAR as float32 x, y, z, intensity, ring), and the `EgoPose` of
  its moment. Those of one sensor and scene are linked, oldest first, by `prev` and `next`; so are samples of a scene;
- one `Instance` for each object, and one `SampleAnnotation` for each sample that shows it, linked as well;
- every `Category`, `Attribute` and `Visibility` that these refer to.

`NuscenesIndex.open` checks all of it, and names the record where something is wrong.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TypedDict

import msgspec

from dualdistill.data.tables import TABLES, Record
from dualdistill.errors import UserError


class TableWriter:
    """Writes records to the tables of one version folder as they come, laid out as nuScenes publishes them.

    A context manager; left by an exception, the tables stay unfinished, and no reader accepts them.

        with TableWriter(root / "v1.0-trainval") as tables:
            tables.write(Sensor(token="lidar", channel="LIDAR_TOP", modality="lidar"))

    Args:
        folder: Made if it is missing. All 13 tables are written, also those that get no record.

    Raises:
        UserError: if the folder holds tables already, or cannot be written.
    """

    def __init__(self, folder: Path):
        present = [name for name in TABLES if (folder / f"{name}.json").exists()]
        if present:
            raise UserError(f"{folder} already holds {present[0]}.json: write to another folder, or delete its tables")
        self._open = ExitStack()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._files = {
                kind: self._open.enter_context((folder / f"{name}.json").open("xb")) for name, kind in TABLES.items()
            }
        except OSError as error:
            self._open.close()
            raise UserError(f"cannot write tables to {folder} ({error.strerror}): choose another folder") from error
        self._decoders = {kind: msgspec.json.Decoder(kind) for kind in TABLES.values()}
        self._begun: set[type[Record]] = set()

    def write(self, record: Record) -> None:
        """Add a record to its table.

        Raises:
            UserError: for a record that could not be read again: a field of another type, a number that is not finite.
        """
        kind, content = type(record), msgspec.json.encode(record)
        try:
            self._decoders[kind].decode(content)  # what is not finite was written as null
        except msgspec.ValidationError as error:
            raise UserError(
                f"{record.table()} record {record.token!r} is not as nuScenes v1.0 has it ({error})"
            ) from error
        lines = msgspec.json.format(content, indent=1)
        for indent in (b"\n   ", b"\n  ", b"\n "):
            lines = lines.replace(indent, b"\n")
        self._files[kind].write((b",\n" if kind in self._begun else b"[\n") + lines)
        self._begun.add(kind)

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            if kind is None:
                for each, file in self._files.items():
                    file.write(b"\n]\n" if each in self._begun else b"[]\n")


class Links(TypedDict):
    prev: str
    next: str


def links(tokens: Sequence[str], position: int) -> Links:
    """`prev` and `next` of one record in a chain of records, oldest first."""
    return {
        "prev": tokens[position - 1] if position > 0 else "",
        "next": tokens[position + 1] if position + 1 < len(tokens) else "",
    }
