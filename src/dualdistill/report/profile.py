"""Profiles of a computation: a Chrome trace and a table of operators."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, schedule

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
    """Context in which a training's first steps are profiled: its function is called after each step.

    Args:
        folder: For steps.json and steps.txt; None for no profile.
    """
    if folder is None:
        yield lambda: None
        return
    taken = schedule(wait=SKIPPED - 1, warmup=1, active=TAKEN, repeat=1)
    write = partial(write_profile, folder=folder, name="steps", device=device)
    with profile(activities=activities(device), schedule=taken, on_trace_ready=write) as profiler:
        yield profiler.step
