"""The cache files of the official MVP code, read without unpickling (docs/methods/mvp.md#cache-files).

A file is a zero-dimensional NumPy array whose only object is a dict of arrays: a pickle. Unpickling can run any code in
the file; here the instructions are interpreted instead, and only those that describe numeric arrays are accepted.
"""

import io
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dualdistill.data.virtual_points.complete import PAINTED_CHANNELS, VIRTUAL_CHANNELS, CompletedSweep
from dualdistill.errors import UserError


def read_official(path: Path) -> CompletedSweep:
    """Painted and virtual points of one `.pkl.npy` file.

    Raises:
        UserError: for a missing file, and for one that the official code did not write.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read virtual points {path} ({error.strerror}); restore the file") from error
    try:
        arrays = pickled_arrays(content)
        return CompletedSweep(
            virtual=torch.from_numpy(arrays["virtual_points"].reshape(-1, VIRTUAL_CHANNELS).astype(np.float32)),
            painted=torch.from_numpy(arrays["real_points"].reshape(-1, PAINTED_CHANNELS).astype(np.float32)),
            painted_rows=torch.from_numpy(arrays["real_points_indice"].reshape(-1).astype(np.int64)),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError) as error:
        raise UserError(
            f"{path} is not a file of the official virtual points ({error}): expected a dict of the arrays "
            "virtual_points (n, 14), real_points (m, 15), real_points_indice (m). Restore it, or make it again "
            "with `dualdistill data virtual-points`."
        ) from error


def pickled_arrays(content: bytes) -> dict[str, np.ndarray]:
    """The dict of arrays in an `.npy` file of one object.

    Raises:
        ValueError: for anything but a dict of numeric arrays; other exceptions of a broken file pass through.
    """
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if shape != () or dtype != np.dtype(object):
        raise ValueError(f"an array of one object was expected, got {dtype} of shape {shape}")
    described = _Walk().run(content[file.tell() :])
    (found,) = described.data if isinstance(described, _Array) else (described,)
    if not isinstance(found, dict):
        raise ValueError(f"a dict was expected, got {type(found).__name__}")
    return {str(name): array.numpy() for name, array in found.items()}


@dataclass
class _Dtype:
    """A dtype described in a pickle; the byte order follows later."""

    kind: str
    order: str = "|"


@dataclass
class _Array:
    """An array described in a pickle; its content follows later."""

    shape: tuple[int, ...] = ()
    dtype: _Dtype | None = None
    fortran: bool = False
    data: Any = b""

    def numpy(self) -> np.ndarray:
        if self.dtype is None or not re.fullmatch("[fiu][1248]", self.dtype.kind) or not isinstance(self.data, bytes):
            raise ValueError("an array of numbers was expected")
        order = self.dtype.order if self.dtype.order in "<>" else "|"
        dtype = np.dtype(order + self.dtype.kind)
        return np.frombuffer(self.data, dtype).reshape(self.shape, order="F" if self.fortran else "C")


@dataclass(frozen=True)
class _Name:
    """A function or class named in a pickle, which is compared but never imported."""

    module: str
    name: str


_MARK = object()
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}


class _Walk:
    """A stack machine for the few pickle instructions that dicts of arrays consist of."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> Any:
        """The object that the instructions describe."""
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "STOP":
                break
            self._step(opcode.name, argument)
        return self.stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            return
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "GLOBAL":
            stack.append(_Name(*argument.split(" ")))
        elif name == "STACK_GLOBAL":
            stack.append(_Name(*self._popped(2)))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(self._popped(int(name[-1]))))
        elif name == "TUPLE":
            stack.append(tuple(self._since_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = self._popped(1) if name == "APPEND" else self._since_mark()
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._popped(2) if name == "SETITEM" else self._since_mark()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "REDUCE":
            function, arguments = self._popped(2)
            stack.append(_made(function, arguments))
        elif name == "BUILD":
            (state,) = self._popped(1)
            _fill(stack[-1], state)
        else:
            raise ValueError(f"the instruction {name} is not allowed")

    def _popped(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _since_mark(self) -> list[Any]:
        mark = next(i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is _MARK)
        items = self.stack[mark + 1 :]
        del self.stack[mark:]
        return items


_RECONSTRUCT = {_Name(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}


def _made(function: _Name, arguments: tuple[Any, ...]) -> Any:
    """The result of a call in the pickle, for the few calls that arrays need."""
    if function in _RECONSTRUCT:
        return _Array()
    if function == _Name("numpy", "dtype"):
        return _Dtype(arguments[0])
    # The second protocol has no bytes and encodes them this way.
    if function == _Name("_codecs", "encode") and arguments[1] == "latin1":
        return arguments[0].encode("latin1")
    if function == _Name("__builtin__", "bytes") and not arguments:
        return b""
    raise ValueError(f"the call of {function.module}.{function.name} is not allowed")


def _fill(target: Any, state: tuple[Any, ...]) -> None:
    if isinstance(target, _Dtype):
        target.order = state[1]
    elif isinstance(target, _Array):
        _, target.shape, target.dtype, target.fortran, target.data = state
    else:
        raise ValueError(f"a {type(target).__name__} has no state")
