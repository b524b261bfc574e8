"""Time formulations of one computation in one run: interleaved, with memory, and with their results compared."""

import ctypes
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

_MEBIBYTE = 1024.0


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to compute something."""

    name: str
    run: Callable[[], Any]
    """Does the work once and returns what must agree between formulations: tensors, arrays, numbers, or tuples, lists
    and mappings of them; None where there is nothing to compare."""
    repeats: int | None = None
    """Fewer than the others take, for something slow."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One formulation, measured."""

    benchmark: str
    """What is computed, with its setting (sizes, dtype, threads)."""
    name: str
    milliseconds: float
    """Median over the repeats."""
    spread: float | None = None
    """Half the distance between the quartiles over the median: how disturbed the machine was."""
    ratio: float | None = None
    """How many times faster than the first formulation, the reference."""
    peak_mib: float | None = None
    """Memory the process grew by at most during one run, MiB; None where the system cannot tell."""
    difference: float | None = None
    """Largest difference to the reference's result, relative to its largest value; None without a result."""
    facts: dict[str, Any] | None = None
    """What programs that read the row want to know beside, as JSON values."""


def measure(
    benchmark: str,
    formulations: Sequence[Variant],
    *,
    repeats: int = 7,
    warm_ups: int = 1,
    floor_ms: float | None = None,
    floor: str = "",
) -> list[Row]:
    """Rows of all formulations, the first of which is the reference.

    The repeats are interleaved (each round runs every formulation once), so that a slow minute of the machine meets all
    of them. Memory is taken in a run of its own.

    Args:
        benchmark: What is computed, and at which size.
        formulations: At least one; each must do all of its work in every call.
        repeats: Rounds; the median is reported.
        warm_ups: Untimed calls before.
        floor_ms: The physical floor (memory traffic or arithmetic), as a row of its own.
        floor: What the floor is made of.
    """
    results = [formulation.run() for formulation in formulations]
    differences = [None, *(relative_difference(results[0], result) for result in results[1:])]
    del results
    for _ in range(warm_ups - 1):
        for formulation in formulations:
            formulation.run()
    times: list[list[float]] = [[] for _ in formulations]
    for turn in range(repeats):
        for formulation, taken in zip(formulations, times, strict=True):
            if turn < (formulation.repeats or repeats):
                began = time.perf_counter()
                formulation.run()
                taken.append(1e3 * (time.perf_counter() - began))
    medians = [statistics.median(taken) for taken in times]
    rows = [
        Row(
            benchmark=benchmark,
            name=formulation.name,
            milliseconds=median,
            spread=_spread(taken),
            ratio=medians[0] / median,
            peak_mib=peak_mib(formulation.run),
            difference=difference,
        )
        for formulation, median, taken, difference in zip(formulations, medians, times, differences, strict=True)
    ]
    if floor_ms is not None:
        rows.append(
            Row(benchmark=benchmark, name=f"floor: {floor}", milliseconds=floor_ms, ratio=medians[0] / floor_ms)
        )
    return rows


def _spread(times: Sequence[float]) -> float | None:
    if len(times) < 3:
        return None
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / 2 / middle


def peak_mib(run: Callable[[], Any]) -> float | None:
    """Most memory held during `run` beyond what was held before, MiB; None where Linux's /proc is missing."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        reset.write_text("5")
        before = _field(status, "VmRSS")
        run()
        return max(0.0, _field(status, "VmHWM") - before)
    except OSError:
        return None


def _field(status: Path, name: str) -> float:
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / _MEBIBYTE


def relative_difference(reference: Any, other: Any) -> float | None:
    """Largest |difference| over the largest |value| of the reference; infinite where shapes or keys differ."""
    if reference is None or other is None:
        return None
    pairs = list(_pairs(reference, other))
    scale = max((float(np.abs(a[np.isfinite(a)]).max(initial=0.0)) for a, _ in pairs), default=0.0)
    worst = 0.0
    for a, b in pairs:
        if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return math.inf
        finite = np.isfinite(a)
        worst = max(worst, float(np.abs(a[finite] - b[finite]).max(initial=0.0)))
    return worst / scale if scale else worst


def _pairs(a: Any, b: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    if isinstance(a, Mapping):
        if a.keys() != b.keys():
            return [(np.zeros(0), np.zeros(1))]
        return [pair for key in a for pair in _pairs(a[key], b[key])]
    if isinstance(a, tuple | list):
        if len(a) != len(b):
            return [(np.zeros(0), np.zeros(1))]
        return [pair for x, y in zip(a, b, strict=True) for pair in _pairs(x, y)]
    return [(_array(a), _array(b))]


def _array(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().to("cpu", torch.float64).numpy()
    return np.asarray(value, dtype=np.float64)


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    model = "unknown CPU"
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "CPU": model,
        "threads": str(torch.get_num_threads()),
        "GPU": device,
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "Python": sys.version.split()[0],
        "torch": torch.__version__,
    }
