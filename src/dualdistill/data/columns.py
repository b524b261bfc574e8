"""Tables of equal-length columns on disk: Arrow IPC files, memory-mapped, no pickles.

A numeric column is a numpy array of any trailing shape; a text column is a `Texts`. Opening reads a header only: pages
are loaded when they are accessed, and worker processes share them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

Position = int | np.integer


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


Column = np.ndarray | Texts


def write_columns(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns of equal length to one Arrow file.

    Args:
        columns: Numbers as numpy arrays; texts as lists or as Arrow's large strings.
    """
    arrays, schema = [], []
    for name, values in columns.items():
        kind, shape = "", ""
        if isinstance(values, np.ndarray):
            if values.dtype == bool:  # Arrow packs booleans into bits, which numpy cannot map
                values, kind = values.view(np.uint8), "bool"
            shape = ",".join(map(str, values.shape[1:]))
            array = pa.array(np.ascontiguousarray(values).reshape(-1))
            if shape:
                array = pa.FixedSizeListArray.from_arrays(array, int(np.prod(values.shape[1:])))
        else:
            array = pa.array(values, pa.large_string()) if isinstance(values, list) else values
        arrays.append(array)
        schema.append(pa.field(name, array.type, metadata={"shape": shape, "kind": kind}))
    table = pa.table(arrays, schema=pa.schema(schema))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_columns(path: Path) -> dict[str, Column]:
    """Columns of one Arrow file, memory-mapped and read-only."""
    table = pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()
    columns: dict[str, Column] = {}
    for field, chunks in zip(table.schema, table.columns, strict=True):
        # An empty table has no batch, and so no chunk.
        array = chunks.chunk(0) if chunks.num_chunks else pa.array([], type=field.type)
        if pa.types.is_large_string(field.type):
            columns[field.name] = Texts(array)
            continue
        shape = tuple(int(size) for size in field.metadata[b"shape"].decode().split(",") if size)
        values = array.flatten() if shape else array
        numbers = values.to_numpy(zero_copy_only=True).reshape(len(array), *shape)
        columns[field.name] = numbers.view(np.bool_) if field.metadata[b"kind"] == b"bool" else numbers
    return columns
