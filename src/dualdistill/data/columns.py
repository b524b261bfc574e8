"""Tables of equal-length columns on disk: Arrow IPC files, memory-mapped, no pickles.

A numeric column is a numpy array of any trailing shape; a text column is a `Texts`. Opening costs the reading
of a header: pages come in as they are touched, and worker processes share them.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
from jaxtyping import Shaped

Position = int | np.integer

BLOCK = 1 << 14
"""Texts copied at once: what they are copied from stays in a processor's cache."""


class Texts(Sequence[str]):
    """A column of strings that stays where it is; single entries come out as `str`."""

    def __init__(self, column: pa.Array):
        self._column = column

    @overload
    def __getitem__(self, index: Position) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Texts": ...
    def __getitem__(self, index: Position | slice) -> "str | Texts":
        if isinstance(index, slice):
            return Texts(self._column[index])
        return self._column[int(index)].as_py()

    def __len__(self) -> int:
        return len(self._column)

    def __iter__(self) -> Iterator[str]:
        return iter(self._column.to_pylist())


Column = np.ndarray | Texts


def write_columns(path: Path, columns: Mapping[str, np.ndarray | list[str]]) -> None:
    """Write columns of equal length to one Arrow file; numpy's bytes are UTF-8 texts."""
    arrays, schema = [], []
    for name, values in columns.items():
        kind = ""
        if isinstance(values, np.ndarray) and values.dtype.kind != "S":
            if values.dtype == bool:  # Arrow packs booleans into bits, which numpy cannot map
                values, kind = values.view(np.uint8), "bool"
            width = int(np.prod(values.shape[1:], dtype=np.int64))
            array = pa.array(np.ascontiguousarray(values).reshape(-1))
            if values.ndim > 1:
                array = pa.FixedSizeListArray.from_arrays(array, width)
            shape = ",".join(map(str, values.shape[1:]))
        elif isinstance(values, np.ndarray):
            array, shape = _strings(values), ""
        else:
            array, shape = pa.array(values, type=pa.large_string()), ""
        arrays.append(array)
        schema.append(pa.field(name, array.type, metadata={"shape": shape, "kind": kind}))
    table = pa.table(arrays, schema=pa.schema(schema))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _strings(texts: Shaped[np.ndarray, "records"]) -> pa.LargeStringArray:
    """Bytes that end in zeros as texts of their own length."""
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.char.str_len(texts), out=offsets[1:])
    characters = np.empty(offsets[-1], np.uint8)
    for start in range(0, len(texts), BLOCK):
        block = np.ascontiguousarray(texts[start : start + BLOCK]).view(np.uint8).reshape(-1, texts.itemsize)
        filled = block != 0
        characters[offsets[start] : offsets[start + len(block)]] = block[filled]
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(characters))


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
