"""Trainings that are stopped at random moments, and what they leave."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from dualdistill.train.metrics import read_metrics
from dualdistill.train.run_folder import RunFolder
from tests.conftest import REPOSITORY
from tests.robust.places import TEACHER, sets

# Not this process: other tests may have started threads of autograd, which do not survive a fork.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["dualdistill.cli", "dualdistill.commands.train"])

STEPS = 5
OF_TIME = {"seconds", "data_share"}
"""Values of a record that two equal trainings need not have in common."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """One way to end a training."""

    number: int
    """The signal, sent to the process group as a terminal does."""
    after: float = 0.0
    """Seconds after the first record."""
    write: int | None = None
    """Kill at the this-manieth operation on the disk instead."""


def command(root: Path, out: Path, *, accumulate: int, devices: int, workers: int) -> list[str]:
    """A training of `STEPS` steps, with a checkpoint after each."""
    changes = (f"training.steps={STEPS}", "training.batch_size=2", f"training.accumulate={accumulate}")
    argv = ["train", "synthetic/teacher-centerpoint", "--data", str(root), "--out", str(out), "--no-check"]
    argv += ["--workers", str(workers), "--devices", str(devices)]
    return argv + sets(*TEACHER, *changes, "training.save_every=1", "training.log_every=1")


def train(argv: list[str], run_folder: Callable[[], Path | None], stop: Stop | None, *, own_process: bool) -> int:
    """Run a command, stopped if asked for; returns its exit code, -N if signal N ended it.

    Args:
        run_folder: The run's folder, as soon as there is one.
        own_process: Start Python anew, as several processes need it; otherwise fork a server that has it loaded.
    """
    if own_process:
        program = [sys.executable, "-m", "dualdistill.cli", *argv]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
        process = subprocess.Popen(
            program, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _stop(process.pid, run_folder, stop, lambda: process.poll() is not None)
        return process.wait(timeout=600)
    child = FORKS.Process(target=_in_child, args=(argv, stop))
    child.start()
    assert child.pid is not None
    _stop(child.pid, run_folder, stop, lambda: not child.is_alive())
    child.join(timeout=600)
    assert child.exitcode is not None
    return child.exitcode


def _in_child(argv: list[str], stop: Stop | None) -> None:
    """Run the command line in a forked process, and end it."""
    from dualdistill.cli import main

    code = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if stop is not None and stop.write is not None:
            _kill_at(stop.write)
        sys.argv = ["dualdistill", *argv]
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        os._exit(code)


def _kill_at(count: int) -> None:
    """Make the `count`-th operation on the disk the last thing this process does."""
    left = [count]

    def counted(really: Callable[..., Any]) -> Callable[..., Any]:
        def once(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return really(*args, **kwargs)

        return once

    for name in ("fsync", "replace", "rename", "open"):
        setattr(os, name, counted(getattr(os, name)))


def _stop(pid: int, run_folder: Callable[[], Path | None], stop: Stop | None, is_over: Callable[[], bool]) -> None:
    if stop is None or stop.write is not None:
        return
    while not is_over():
        folder = run_folder()
        if folder is not None and (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size:
            break
        time.sleep(0.02)
    else:
        return
    end = time.monotonic() + stop.after
    while time.monotonic() < end:
        if is_over():
            return
        time.sleep(0.01)
    try:
        os.killpg(pid, stop.number)
    except ProcessLookupError:
        return


def random_stop(generator: random.Random, number: int) -> Stop:
    """A stop at a random moment; every third SIGKILL comes in the middle of writing."""
    if number == signal.SIGKILL and generator.random() < 1 / 3:
        return Stop(number=number, write=generator.randrange(5, 60))
    return Stop(number=number, after=generator.uniform(0, 1.5))


def final_state(run: Path) -> dict[str, Any]:
    """Weights, optimiser and metrics of a finished run."""
    folder = RunFolder(run).checkpoint()
    optimiser = torch.load(folder / "training_state" / "optimiser.pt", weights_only=True)
    records = [{k: v for k, v in record.items() if k not in OF_TIME} for record in read_metrics(run / "metrics.jsonl")]
    return {"weights": load_file(folder / "teacher.safetensors"), "optimiser": optimiser, "metrics": records}


def equal(a: Any, b: Any) -> bool:
    """Whether two nested states are equal in every bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and bool(torch.equal(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)
