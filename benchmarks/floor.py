"""Lower bounds of any program on this machine: the time of moving bytes, and of multiplying."""

import statistics
from collections.abc import Callable
from functools import cache

import torch

from dualdistill.report.timing import run_ms

_BYTES = 1 << 28
_SIDE = 1024


def traffic_ms(bytes_moved: float) -> float:
    """Milliseconds to read or write so many bytes of main memory once."""
    return 1e3 * bytes_moved / _bytes_per_second()


def arithmetic_ms(operations: float) -> float:
    """Milliseconds of so many float32 multiplications and additions, at the rate of a large matrix product."""
    return 1e3 * operations / _operations_per_second()


@cache
def _bytes_per_second() -> float:
    source, target = torch.ones(_BYTES // 4), torch.empty(_BYTES // 4)
    return 2 * _BYTES / _seconds(lambda: target.copy_(source))


@cache
def _operations_per_second() -> float:
    a, b = torch.ones(_SIDE, _SIDE), torch.ones(_SIDE, _SIDE)
    return 2 * _SIDE**3 / _seconds(lambda: a @ b)


def _seconds(run: Callable[[], object]) -> float:
    run()
    return statistics.median(run_ms(run) for _ in range(5)) / 1e3
