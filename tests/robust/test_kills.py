"""A training that is stopped at any moment and resumed ends as one that was not: weights, optimiser, metrics.

A few kills here; `make soak` does 40 (`ROBUST_KILLS`).
"""

import os
import random
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.data.tiny_root import write_root
from tests.robust.kills import Stop, command, equal, final_state, random_stop, train

KILLS = int(os.environ.get("ROBUST_KILLS", "5"))
NUMBERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {
    signal.SIGKILL: {-signal.SIGKILL},
    signal.SIGTERM: {143, -signal.SIGTERM},
    signal.SIGINT: {130, -signal.SIGINT},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_root(tmp_path_factory.mktemp("kills") / "root", {"scene-0061": 3, "scene-0103": 2}, sweeps=False).path


def run_in(out: Path) -> Path | None:
    found = [path.parent for path in out.glob("*/*/*/experiment.json")]
    return found[0] if found else None


@pytest.fixture(scope="module")
def unbroken(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict]:
    """Final states of trainings that nothing stopped, by accumulated batches and processes."""
    states = {}
    for accumulate, devices in ((1, 1), (2, 1), *(((2, 2),) if KILLS >= 40 else ())):
        out = tmp_path_factory.mktemp("unbroken")
        argv = command(root, out, accumulate=accumulate, devices=devices, workers=0)
        assert train(argv, lambda out=out: run_in(out), None, own_process=devices > 1) == 0
        run = run_in(out)
        assert run is not None
        states[accumulate, devices] = final_state(run)
    return states


@dataclass(frozen=True)
class Kill:
    """How a training is stopped first, and what comes next at random."""

    devices: int
    accumulate: int
    stop: Stop
    generator: random.Random

    @classmethod
    def numbered(cls, kill: int) -> "Kill":
        generator, number = random.Random(kill), NUMBERS[kill % 3]
        if KILLS >= 40 and kill % 8 == 7:
            return cls(2, 2, Stop(number=number, after=generator.uniform(0, 1.0)), generator)
        return cls(1, 1 + kill % 2, random_stop(generator, number), generator)

    @property
    def name(self) -> str:
        when = "at a write" if self.stop.write is not None else "at any time"
        number = signal.Signals(self.stop.number).name
        return f"{number} {when}, {self.devices} processes, {self.accumulate} batches a step"


@pytest.mark.parametrize("kill", range(KILLS), ids=lambda kill: f"{kill}: {Kill.numbered(kill).name}")
def test_a_training_that_was_stopped_ends_as_an_unbroken_one(
    root: Path, unbroken: dict[tuple[int, int], dict], tmp_path: Path, kill: int
) -> None:
    first = Kill.numbered(kill)
    devices, accumulate, generator, number = first.devices, first.accumulate, first.generator, first.stop.number
    workers = 2 if number == signal.SIGINT and devices == 1 else 0
    argv = command(root, tmp_path, accumulate=accumulate, devices=devices, workers=workers)
    stop: Stop | None = first.stop
    for _ in range(6):
        code = train(argv, lambda: run_in(tmp_path), stop, own_process=devices > 1)
        run = run_in(tmp_path)
        if code == 0:
            break
        assert stop is not None, f"a resumed training ended with {code}"
        assert code in CODES[signal.Signals(stop.number)], code
        if run is not None:
            argv = ["resume", str(run), "--workers", str(workers), "--devices", str(devices)]
        stop = random_stop(generator, number) if generator.random() < 0.3 and devices == 1 else None
    assert run is not None
    assert equal(final_state(run), unbroken[accumulate, devices])
    assert not list(run.glob("checkpoints/.*"))
