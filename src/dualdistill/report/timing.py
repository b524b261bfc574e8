"""Time and memory of several ways to compute one thing, interleaved and with their results compared; profiles."""

import ctypes
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile, schedule
from torch.utils._pytree import tree_flatten

from dualdistill.report.table import Column, Table

UNEQUAL = "unequal"
"""In JSON, the difference of a result whose shape or keys are not the reference's."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to compute something."""

    name: str
    run: Callable[[], Any]
    """Does all of the work once and returns what must agree between variants: tensors, arrays, numbers, or tuples,
    lists and mappings of them; None where there is nothing to compare."""
    repeats: int | None = None
    """Fewer than the other variants take, for something slow."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant, measured."""

    setting: str
    """What is computed, and at which size (dtype, threads, device)."""
    name: str
    milliseconds: float
    """Median over the repeats."""
    spread: float | None = None
    """Half the distance between the quartiles over the median: how disturbed the machine was."""
    ratio: float | None = None
    """Time of the first variant, the reference, over that of this one."""
    peak_mib: float | None = None
    """Most memory held during one run beyond what was held before, MiB; None where it cannot be measured."""
    difference: float | None = None
    """Largest difference to the reference's result, relative to its largest value; infinite for a result of another
    shape, None without a result."""
    facts: dict[str, Any] | None = None
    """More about this row, as JSON values."""

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values, `facts` only where there are some."""
        plain = asdict(self)
        if self.difference is not None and not math.isfinite(self.difference):
            plain["difference"] = UNEQUAL
        return plain if self.facts is not None else {key: plain[key] for key in plain if key != "facts"}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Row":
        """The row that `to_json` wrote; other keys are ignored, a missing one is a KeyError."""
        values = {name: plain[name] for name in cls.__dataclass_fields__ if name != "facts"}
        difference = math.inf if values["difference"] == UNEQUAL else values["difference"]
        return cls(**values | {"difference": difference, "facts": plain.get("facts")})


def measure(
    setting: str,
    variants: Sequence[Variant],
    *,
    repeats: int = 7,
    device: str = "cpu",
    floor_ms: float | None = None,
    floor: str = "",
) -> list[Row]:
    """Rows of all variants, the first of which is the reference.

    Every variant runs once to warm up and to give its result. The repeats are interleaved (each round runs every
    variant once), so that a slow moment of the machine affects all of them; the median is reported. Memory is taken in
    a run of its own.

    Args:
        device: "cpu" or "cuda"; on CUDA, times come from events and memory from PyTorch's allocator.
        floor_ms: The physical floor (memory traffic or arithmetic), as a row of its own.
        floor: What the floor is made of.
    """
    results = [variant.run() for variant in variants]
    differences = [None, *(relative_difference(results[0], result) for result in results[1:])]
    del results
    times: list[list[float]] = [[] for _ in variants]
    for turn in range(repeats):
        for variant, taken in zip(variants, times, strict=True):
            if turn < (variant.repeats or repeats):
                taken.append(run_ms(variant.run, device))
    medians = [statistics.median(taken) for taken in times]
    rows = [
        Row(
            setting=setting,
            name=variant.name,
            milliseconds=median,
            spread=_spread(taken),
            ratio=medians[0] / median,
            peak_mib=peak_mib(variant.run, device),
            difference=difference,
        )
        for variant, median, taken, difference in zip(variants, medians, times, differences, strict=True)
    ]
    if floor_ms is not None:
        rows.append(Row(setting=setting, name=f"floor: {floor}", milliseconds=floor_ms, ratio=medians[0] / floor_ms))
    return rows


def run_ms(run: Callable[[], object], device: str = "cpu") -> float:
    """Milliseconds of one run; on CUDA between two events, after what was queued before is done."""
    if device == "cpu":
        began = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - began)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def _spread(times: Sequence[float]) -> float | None:
    if len(times) < 3:
        return None
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / 2 / middle


def peak_mib(run: Callable[[], object], device: str = "cpu") -> float | None:
    """Most memory held during `run` beyond what was held before, MiB; None on a CPU without Linux's /proc."""
    gc.collect()
    if device != "cpu":
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        reset.write_text("5")
        before = _field_mib(status, "VmRSS")
        run()
        return max(0.0, _field_mib(status, "VmHWM") - before)
    except OSError:
        return None


def _field_mib(status: Path, name: str) -> float:
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def relative_difference(reference: Any, other: Any) -> float | None:
    """Largest |difference| over the largest |value| of the reference; infinite where shapes or keys differ."""
    if reference is None or other is None:
        return None
    (a, form), (b, other_form) = tree_flatten(reference), tree_flatten(other)
    a, b = [_array(value) for value in a], [_array(value) for value in b]
    if form != other_form or [x.shape for x in a] != [x.shape for x in b]:
        return math.inf
    pairs = [(x, y, np.isfinite(x)) for x, y in zip(a, b, strict=True)]
    if not all(np.array_equal(finite, np.isfinite(y)) for _, y, finite in pairs):
        return math.inf
    scale = max((float(np.abs(x[finite]).max(initial=0.0)) for x, _, finite in pairs), default=0.0)
    worst = max((float(np.abs(x[finite] - y[finite]).max(initial=0.0)) for x, y, finite in pairs), default=0.0)
    return worst / scale if scale else worst


def _array(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().to("cpu", torch.float64).numpy()
    return np.asarray(value, dtype=np.float64)


def timing_tables(rows: Sequence[Row], extra: Sequence[Column] = ()) -> list[Table]:
    """One table for each setting, in order; `extra` columns show `facts` of the rows."""
    by_setting: dict[str, list[Row]] = {}
    for row in rows:
        by_setting.setdefault(row.setting, []).append(row)
    columns = (
        Column(key="name", title="Variant"),
        Column(key="milliseconds", title="ms", digits=2),
        Column(key="spread", title="± %", digits=0, scale=100.0, side=True),
        Column(key="ratio", title="times faster", digits=2),
        Column(key="peak_mib", title="peak MiB", digits=1),
        Column(key="difference", title="difference"),
        *extra,
    )
    return [
        Table(title=setting, columns=columns, rows=tuple((row.facts or {}) | _shown(row) for row in some))
        for setting, some in by_setting.items()
    ]


def _shown(row: Row) -> dict[str, Any]:
    plain = row.to_json()
    if row.difference is not None and math.isfinite(row.difference):
        plain["difference"] = f"{row.difference:.1g}"
    return plain


def machine() -> dict[str, str]:
    """CPU, GPU, threads and versions that figures were taken with."""
    model = "unknown CPU"
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return {
        "CPU": model,
        "threads": str(torch.get_num_threads()),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "Python": sys.version.split()[0],
        "torch": torch.__version__,
    }


def machine_text() -> str:
    """`machine` in one line."""
    return ", ".join(f"{name} {value}" for name, value in machine().items())


SKIPPED, TAKEN = 4, 3
"""Steps of a training that pass before those that are profiled, and how many these are."""


def activities(device: str) -> list[ProfilerActivity]:
    """What is recorded on a "cpu" or "cuda"."""
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]


def write_profile(profiler: Any, folder: Path, name: str, device: str) -> None:
    """Write `name`.json, for chrome://tracing or ui.perfetto.dev, and `name`.txt, operators by their own time."""
    folder.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(folder / f"{name}.json"))
    order = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    (folder / f"{name}.txt").write_text(profiler.key_averages().table(sort_by=order, row_limit=60))


@contextmanager
def profiled_steps(folder: Path | None, device: str) -> Iterator[Callable[[], None]]:
    """Context in which a training's first steps are profiled: its function is called after each step. `folder`: for
    steps.json and steps.txt; None for no profile."""
    if folder is None:
        yield lambda: None
        return
    taken = schedule(wait=SKIPPED - 1, warmup=1, active=TAKEN, repeat=1)
    write = partial(write_profile, folder=folder, name="steps", device=device)
    with profile(activities=activities(device), schedule=taken, on_trace_ready=write) as profiler:
        yield profiler.step
