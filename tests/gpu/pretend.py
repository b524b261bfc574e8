"""A GPU that is not there: tensors on a device "pretend" whose values lie in CPU tensors.

Every operator computes, so data-dependent control flow takes its true course, and code that asks `device.type != "cpu"`
takes its GPU branch. `Watch` records, with the line of the package that called:

- mixings: an operator meets a device tensor and a CPU tensor with at least one axis (CUDA raises there);
- waits: whatever makes a CUDA host wait for the device: `.item()`, `bool(tensor)`, `nonzero`, `unique`, boolean masks,
  `bincount`, `repeat_interleave` of unknown length, `torch.equal`, and copies between host and device that are not
  asynchronous (`torch.tensor(..., device=...)` and `new_tensor` are such copies);
- launches: operators that would start a kernel.

Not covered: data types for which CUDA has no kernel, numerical differences, autocast (without effect here), and
synchronisation inside CUDA operators other than those listed. The optimiser's launches are overestimated, since its
foreach kernels refuse tensor subclasses. The device's name is global to a process: it is registered at import.
"""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

import dualdistill

PACKAGE = str(Path(dualdistill.__file__).parent)
NAME = "pretend"

aten = torch.ops.aten


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def set_device(self, device: Any) -> None: ...


_setup_privateuseone_for_python_backend(NAME, _Backend())
_LIBRARY = torch.library.Library("_", "IMPL")
_LIBRARY.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
DEVICE = torch.device(NAME, 0)


class DeviceTensor(Tensor):
    """A tensor on the device; `inner` holds its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "DeviceTensor":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )
        made.inner = inner
        return made

    def __repr__(self) -> str:
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype})"

    def tolist(self) -> Any:
        if Watch.running is not None:
            Watch.running.count_wait("tolist")
        return self.inner.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert a device tensor to numpy: copy it to host memory first")

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy = DeviceTensor(self.inner.clone())
        return torch.nn.Parameter(copy, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        watch = Watch.running
        return watch.call(func, args, kwargs or {}) if watch is not None else _compute(func, args, kwargs or {})


def _masks(indices: Any) -> int:
    return sum(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)


_WAITS: dict[Any, Callable[[Any, Any], int]] = {
    aten._local_scalar_dense: lambda args, kwargs: 1,
    aten.equal: lambda args, kwargs: 1,
    aten.nonzero: lambda args, kwargs: 1,
    aten.masked_select: lambda args, kwargs: 1,
    aten._unique2: lambda args, kwargs: 1,
    aten.unique_dim: lambda args, kwargs: 2,
    aten.unique_consecutive: lambda args, kwargs: 1,
    aten.bincount: lambda args, kwargs: 2,  # the smallest and the largest value
    aten.repeat_interleave: lambda args, kwargs: int(
        kwargs.get("output_size") is None and (len(args) < 2 or args[1] is None)
    ),
    aten.index: lambda args, kwargs: _masks(args[1]),
    aten._unsafe_index: lambda args, kwargs: _masks(args[1]),
    aten.index_put: lambda args, kwargs: _masks(args[1]),
    aten.index_put_: lambda args, kwargs: _masks(args[1]),
    aten._linalg_check_errors: lambda args, kwargs: 1,
}
"""How often a CUDA host waits in an operator."""
_NO_KERNEL = {
    *(aten.view, aten._unsafe_view, aten._reshape_alias, aten.expand, aten.permute, aten.transpose, aten.t),
    *(aten.select, aten.slice, aten.unsqueeze, aten.squeeze, aten.detach, aten.alias, aten.as_strided, aten.split),
    *(aten.split_with_sizes, aten.unbind, aten.diagonal, aten.lift_fresh, aten.empty, aten.empty_like),
    *(aten.new_empty, aten.empty_strided, aten.new_empty_strided, aten.unfold, aten.is_same_size, aten.set_),
    *(aten.view_as_real, aten._local_scalar_dense, aten.sym_size, aten.is_pinned, aten.chunk, aten.mT),
}
_TRANSFERS = {aten._to_copy, aten.copy_, aten._copy_from, aten._copy_from_and_resize}
_CPU_INDICES = {aten.index, aten._unsafe_index, aten.index_put, aten.index_put_}
"""Index tensors may lie on the CPU: CUDA copies them, and waits, instead of raising."""


def _unwrap(tree: Any) -> Any:
    return pytree.tree_map_only(DeviceTensor, lambda tensor: tensor.inner, tree)


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run on the CPU; results are on the device if an argument is, or if they are asked for there."""
    wanted = kwargs.get("device")
    there = any(isinstance(leaf, DeviceTensor) for leaf in pytree.tree_leaves((args, kwargs)))
    if wanted is not None:
        there = torch.device(wanted).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu") if there else wanted}
    if there or wanted is not None:
        kwargs = {name: value for name, value in kwargs.items() if name != "non_blocking"}
    out = func(*_unwrap(args), **_unwrap(kwargs))
    if not there or out is None:
        return out
    wrapped = pytree.tree_map_only(Tensor, lambda t: t if isinstance(t, DeviceTensor) else DeviceTensor(t), out)
    if wanted is not None:
        return wrapped
    if func._schema.is_mutable and not any(isinstance(arg, DeviceTensor) for arg in args):  # lists in, lists out
        return out
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


class Watch(TorchDispatchMode):
    """Counts mixings, waits and launches by (operator, line of the package) while it is entered."""

    running: "Watch | None" = None

    def __init__(self, package: str = PACKAGE):
        super().__init__()
        self.package = package
        self.mixings: Counter[tuple[str, str]] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.launches: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def __enter__(self) -> "Watch":
        Watch.running = self
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) then shows its copy
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        Watch.running = None
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.call(func, args, kwargs or {})

    def call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Count an operator and run it."""
        packet = func._overloadpacket
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
        here = [t for t in tensors if not isinstance(t, DeviceTensor) and t.device.type != "meta"]
        wanted = kwargs.get("device")
        to_there = wanted is not None and torch.device(wanted).type == NAME
        with self._lock:
            if packet in _TRANSFERS:
                to_device = to_there or (bool(here and there) and args[1] in here)
                if (here and (to_there or there)) or (there and wanted is not None and not to_there):
                    asynchronous = bool(kwargs.get("non_blocking")) or (len(args) > 2 and args[2] is True)
                    if not (asynchronous and to_device):
                        self.count_wait("copy to the device" if to_device else "copy to the host")
            elif there:
                for _ in range(_WAITS[packet](args, kwargs) if packet in _WAITS else 0):
                    self.count_wait(str(func))
                shaped = [tensor for tensor in here if tensor.ndim > 0]
                if shaped and packet in _CPU_INDICES and isinstance(args[0], DeviceTensor):
                    self.count_wait("index on the CPU")
                elif shaped:
                    self.mixings[str(func), self.line()] += 1
            if (there or to_there) and packet not in _NO_KERNEL:
                self.launches[str(func), self.line()] += 1
        return _compute(func, args, kwargs)

    def count_wait(self, reason: str) -> None:
        self.waits[reason, self.line()] += 1

    def line(self) -> str:
        """The innermost line of the package on the stack; in backward, the autograd node."""
        frame: Any = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith(self.package):
                return f"{frame.f_code.co_filename[len(self.package) + 1 :]}:{frame.f_lineno}"
            frame = frame.f_back
        node = torch._C._current_autograd_node()
        return f"({node.name()})" if node is not None else "(outside)"

    def report(self, top: int = 30) -> str:
        """The counts, most frequent lines first."""
        lines = []
        for title in ("mixings", "waits", "launches"):
            counter: Counter[tuple[str, str]] = getattr(self, title)
            lines.append(f"{title}: {counter.total()}")
            lines += [f"  {count:6d}  {line}  {what}" for (what, line), count in counter.most_common(top)]
        return "\n".join(lines)


@contextmanager
def watching(package: str = PACKAGE) -> Iterator[Watch]:
    """Count what happens inside."""
    with Watch(package) as watch:
        yield watch
