"""The cache files of the official MVP code, read without running code of the file (docs/methods/mvp.md#cache-files).

A file is a zero-dimensional NumPy array whose only object is a dict of arrays: a pickle. A pickle may name any function
to be called; here the names that arrays need stand for functions of this module, and any other is refused.
"""

import io
import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from dualdistill.data.virtual_points.complete import CACHE_NAMES, PAINTED_CHANNELS, VIRTUAL_CHANNELS, CompletedSweep
from dualdistill.data.virtual_points.files import missing_files
from dualdistill.errors import UserError
from dualdistill.files import read_bytes


@dataclass(frozen=True, kw_only=True)
class OfficialFiles:
    """Painted and virtual points of sweeps, in files beside the LiDAR's; the counterpart of `files.ArrayFiles`."""

    folder: Path
    """The nuScenes root."""
    made_from: None = None
    """Their origin is not recorded."""

    def path(self, filename: str) -> Path:
        """File of a sweep, from the name of the LiDAR file in the tables."""
        lidar = PurePosixPath(filename)
        return self.folder / lidar.parent.parent / f"{lidar.parent.name}_VIRTUAL" / f"{lidar.name}.pkl.npy"

    def missing(self, filenames: Iterable[str]) -> list[str]:
        """The `filenames` without a file."""
        return missing_files(self.path, filenames)

    def read(self, filename: str) -> CompletedSweep:
        """Points of one sweep; raises as `read_official`."""
        return read_official(self.path(filename))


def read_official(path: Path) -> CompletedSweep:
    """Painted and virtual points of one `.pkl.npy` file.

    Raises:
        UserError: for a missing file, and for one that the official code did not write.
    """
    content = read_bytes(path)
    try:
        arrays = pickled_arrays(content)
        virtual, painted, rows = (arrays[name] for name in CACHE_NAMES)
        return CompletedSweep(
            virtual=torch.from_numpy(virtual.reshape(-1, VIRTUAL_CHANNELS).astype(np.float32)),
            painted=torch.from_numpy(painted.reshape(-1, PAINTED_CHANNELS).astype(np.float32)),
            painted_rows=torch.from_numpy(rows.reshape(-1).astype(np.int64)),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path} is not a file of the official virtual points ({error}): expected a dict of the arrays "
            "virtual_points (n, 14), real_points (m, 15), real_points_indice (m). Restore it, or make it again "
            "with `dualdistill data virtual-points`."
        ) from error


def pickled_arrays(content: bytes) -> dict[str, np.ndarray]:
    """The dict of arrays in an `.npy` file of one object; a broken file raises ValueError or what broke on it."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if shape != () or dtype != np.dtype(object):
        raise ValueError(f"an array of one object was expected, got {dtype} of shape {shape}")
    described = _Unpickler(file).load()
    (found,) = described.data if isinstance(described, _Array) else (described,)
    if not isinstance(found, dict):
        raise ValueError(f"a dict was expected, got {type(found).__name__}")
    return {str(name): array.numpy() for name, array in found.items()}


class _Dtype:
    """A dtype in a pickle: its kind such as "f4", and the byte order."""

    def __init__(self, kind: str, *_: object):
        self.kind, self.order = kind, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Array:
    """An array in a pickle, handed to NumPy only after a check."""

    def __init__(self, *_: object):
        self.shape, self.dtype, self.fortran, self.data = (), None, False, b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def numpy(self) -> np.ndarray:
        kind, order = (self.dtype.kind, self.dtype.order) if isinstance(self.dtype, _Dtype) else ("", "|")
        if not re.fullmatch("[fiu][1248]", kind) or not isinstance(self.data, bytes):
            raise ValueError("an array of numbers was expected")
        dtype = np.dtype((order if order in "<>" else "|") + kind)
        return np.frombuffer(self.data, dtype).reshape(self.shape, order="F" if self.fortran else "C")


_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): None,  # an argument that `_Array` ignores
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    # The second protocol has no bytes: it encodes texts, or calls `bytes` for none.
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
    ("__builtin__", "bytes"): lambda: b"",
}
"""What the names in a pickle stand for."""


class _Unpickler(pickle.Unpickler):
    """Python's own, except that nothing can be imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise ValueError(f"the name {module}.{name} is not allowed")
        return _NAMES[module, name]
