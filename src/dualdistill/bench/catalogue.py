"""Every benchmark by name."""

from collections.abc import Callable
from dataclasses import dataclass

from dualdistill.bench.measure import Row


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What can be measured."""

    summary: str
    """What is compared, for the list and the page."""
    run: Callable[[bool], list[Row]]
    """Measures; given true, at a size that takes seconds and only informs."""
    target: str = ""
    """What was promised on two cores."""


BENCHMARKS: dict[str, Benchmark] = {}
"""In the order of the page."""
