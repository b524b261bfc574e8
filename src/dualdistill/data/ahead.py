"""Tables that another process cuts into columns while this one is busy with the rest.

The interpreter lets one thread run at a time wherever numpy does not let go of it: often enough that a second thread
gains little. What the other process finds it writes to files, mapped here when they are asked for.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from dualdistill.data import tables
from dualdistill.data.line_layout import Columns, UnsupportedLayout, cut_records
from dualdistill.data.table_columns import read_table_columns

SMALLEST = 1 << 26
"""Bytes of tables for which starting a process pays."""

_COMMAND = "from dualdistill.data.ahead import cut_for_another; cut_for_another()"

Run = tuple[str, list[int]]
"""Type and shape of values that lie behind each other in a file."""


class Ahead:
    """Tables in the order in which they will be asked for, each cut already, or about to be.

    Args:
        process: Says in a line of JSON of each table in turn what it wrote; None where nobody cuts ahead.
    """

    def __init__(
        self,
        folder: Path,
        records: Mapping[str, type[msgspec.Struct]],
        scratch: Path,
        process: "subprocess.Popen[str] | None",
    ):
        self.folder, self.records, self.scratch, self.process = folder, records, scratch, process

    def read(self, name: str) -> Columns:
        """The fields of the next table, see `read_table_columns`.

        Raises:
            UserError: as that does.
        """
        said = self.process.stdout.readline() if self.process and self.process.stdout else ""
        runs = msgspec.json.decode(said, type=dict[str, list[Run]] | None) if said.endswith("\n") else None
        if runs is None:  # what it found is for a parser, or it has died
            return read_table_columns(self.folder, name, self.records[name])
        return {field: _mapped(self.scratch / f"{name}.{field}", parts) for field, parts in runs.items()}


@contextmanager
def cut_ahead(folder: Path, records: Mapping[str, type[msgspec.Struct]], scratch: Path) -> Iterator[Ahead]:
    """Have tables cut by another process, if that pays.

    Args:
        folder: Of the tables.
        records: What is wanted of each, in the order in which `Ahead.read` will be asked.
        scratch: Folder for what has been cut; it can go afterwards.
    """
    paths = [folder / f"{name}.json" for name in records]
    size = sum(path.stat().st_size for path in paths if path.is_file())
    process = None
    if size >= SMALLEST and (os.cpu_count() or 1) > 1 and sys.executable:
        tasks = [f"{name}={record.__name__}" for name, record in records.items()]
        process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, str(folder), str(scratch), *tasks],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    try:
        yield Ahead(folder, records, scratch, process)
    finally:
        if process is not None:
            process.kill()
            process.communicate()


def cut_for_another() -> None:
    """Cut the tables that the command line names, and say of each where its columns lie: `null` where it cannot."""
    folder, scratch, *tasks = sys.argv[1:]
    for task in tasks:
        name, record = task.split("=")
        path = Path(folder, f"{name}.json")
        try:
            runs = _write_columns(path, getattr(tables, record), Path(scratch)) if path.is_file() else None
        except UnsupportedLayout:
            runs = None
        print(msgspec.json.encode(runs).decode(), flush=True)


def _write_columns(path: Path, record: type[msgspec.Struct], scratch: Path) -> dict[str, list[Run]]:
    """Columns of a table as they come, one file each, and what lies there."""
    runs: dict[str, list[Run]] = {}
    files = {field: (scratch / f"{path.stem}.{field}").open("wb", buffering=0) for field in tables.kinds_of(record)}
    try:
        for columns in cut_records(path, record):
            for field, values in columns.items():
                np.ascontiguousarray(values).tofile(files[field])
                run = (values.dtype.str, list(values.shape))
                before = runs.setdefault(field, [])
                if before and before[-1][0] == run[0]:
                    before[-1][1][0] += len(values)
                else:
                    before.append(run)
    finally:
        for file in files.values():
            file.close()
    return runs


def _mapped(path: Path, runs: list[Run]) -> np.ndarray:
    content = np.memmap(path, np.uint8, "r")
    arrays: list[np.ndarray] = []
    at = 0
    for dtype, shape in runs:
        size = np.dtype(dtype).itemsize * int(np.prod(shape))
        arrays.append(np.asarray(content[at : at + size]).view(dtype).reshape(shape))
        at += size
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
