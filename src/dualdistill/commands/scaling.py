"""How the cost of a training step grows with the size of the problem, as `bench scaling` measured it somewhere.

The package brings one such table, `scaling.json`, made by

    dualdistill bench scaling --json src/dualdistill/commands/scaling.json --page docs/performance.md

A user's own table comes from `dualdistill bench scaling --json FILE`.

The time of a recipe's step is its counted arithmetic over the arithmetic a second of the measured step that is nearest
in arithmetic. Products of powers (size / measured size)^exponent were no alternative: the cost of a step is a sum (of
images, lifting, map), and so the exponents themselves change on the way from small sizes to large ones. They say what
doubling a size does near the sizes measured.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from dualdistill.errors import UserError

PACKAGED = Path(__file__).with_name("scaling.json")

BENCHMARK = "scaling"
"""Name of the benchmark that makes such tables."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a row of the benchmark says for programs, beside its time and memory."""

    step: str
    """What was run, in full: the row's own name may only say which size differs."""
    role: str
    """Who learns: "teacher" or "student"."""
    precision: str
    """As in `TrainingConfig`."""
    flops: int
    """Counted arithmetic of the step, all samples."""
    sizes: dict[str, int]
    """Everything that the benchmark varies."""
    varied: str | None
    """Which of the sizes the row's table varies; None for one that compares recipes."""
    growth: "Growth | None"
    """With that size; the same in all rows of the table."""


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """Exponents k of cost ~ size^k."""

    time: float
    memory: float | None
    """None where the machine could not tell memory."""


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """What this module reads of a row that `bench` writes."""

    milliseconds: float
    peak_mib: float | None
    quick: bool
    machine: str
    facts: Facts


@dataclass(frozen=True, kw_only=True)
class MeasuredStep:
    """One training step, as it was timed."""

    seconds: float
    peak_mib: float | None
    facts: Facts

    @property
    def flops_per_second(self) -> float:
        return self.facts.flops / self.seconds


@dataclass(frozen=True, kw_only=True)
class ScalingTable:
    """Measured steps, and the growth of their cost with each size."""

    steps: tuple[MeasuredStep, ...]
    growth: dict[str, Growth]
    """By the size that grows."""
    machine: str
    """What the steps were taken on."""

    @classmethod
    def read(cls, path: Path = PACKAGED) -> "ScalingTable":
        """
        Raises:
            UserError: for a file that `dualdistill bench scaling --json FILE` did not write.
        """
        expected = "expected one written by `dualdistill bench scaling --json FILE`"
        if not path.is_file():
            raise UserError(f"There is no scaling table {path}: {expected}.")
        try:
            plain = json.loads(path.read_text())
            if not isinstance(plain, list):
                raise ValueError("it holds no rows")
            own = [row for row in plain if isinstance(row, dict) and row.get("benchmark") == BENCHMARK]
            rows = msgspec.convert(own, list[_Row])
        except ValueError as error:
            raise UserError(f"{path} is no scaling table ({error}): {expected} of this version.") from None
        if not rows:
            raise UserError(f"{path} has no rows of the benchmark {BENCHMARK!r}: {expected}.")
        if any(row.quick for row in rows):
            raise UserError(
                f"{path} was measured with --quick, at sizes that tell nothing: {expected}, without --quick."
            )
        if not all(row.milliseconds > 0 and row.facts.flops > 0 for row in rows):
            raise UserError(f"{path} has steps without time or arithmetic: {expected}.")
        return cls.of(rows)

    @classmethod
    def of(cls, rows: Sequence[_Row]) -> "ScalingTable":
        steps = (MeasuredStep(seconds=row.milliseconds / 1e3, peak_mib=row.peak_mib, facts=row.facts) for row in rows)
        return cls(
            steps=tuple(steps),
            growth={r.facts.varied: r.facts.growth for r in rows if r.facts.varied and r.facts.growth},
            machine=rows[0].machine,
        )

    def nearest(self, role: str, precision: str, flops: float) -> MeasuredStep:
        """The measured step whose arithmetic is nearest, in its logarithm; of this precision and role where there is
        one, else of this precision, else of any."""

        def distance(step: MeasuredStep) -> tuple[bool, bool, float]:
            facts = step.facts
            return facts.precision != precision, facts.role != role, abs(math.log(flops / facts.flops))

        return min(self.steps, key=distance)

    def seconds(self, role: str, precision: str, flops: float) -> float:
        """Of a step with so much arithmetic, on the machine of this table."""
        return flops / self.nearest(role, precision, flops).flops_per_second

    def doubled(self) -> dict[str, dict[str, float | None]]:
        """By what time and memory are multiplied when a size is doubled."""
        return {
            name: {"time": 2**k.time, "memory": None if k.memory is None else 2**k.memory}
            for name, k in self.growth.items()
        }


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of the least-squares line through (log size, log cost)."""
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    rise = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return rise / sum((a - middle_x) ** 2 for a in x)


def growth_of(sizes: Sequence[float], seconds: Sequence[float], peak_mib: Sequence[float | None]) -> Growth:
    """Exponents of measured costs."""
    known = [mib for mib in peak_mib if mib]
    memory = exponent(sizes, known) if len(known) == len(sizes) else None
    return Growth(time=exponent(sizes, seconds), memory=memory)


def plain_facts(facts: Facts) -> dict[str, Any]:
    """As JSON values."""
    return msgspec.to_builtins(facts)
