"""Waits and launches of training steps on the pretended GPU: `python -m tests.gpu.count [RECIPE ...]` (see `--help`).

Convolutions and matrix products give zeros at once (`step_cost`), so that steps of full size take seconds: their
arithmetic decides nothing, and data-dependent control flow takes its course on the values that are left. Prints a
Markdown table; `--lines` also the lines of the package that wait and that launch most.
"""

import argparse
import gc
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from fnmatch import fnmatch

from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.plain import override
from dualdistill.recipes.catalogue import RECIPES
from dualdistill.train.step_cost import DummyStep, _Weightless
from tests.commands.conftest import TINY_STUDENT, TINY_TEACHER, TINY_VOXEL_TEACHER
from tests.gpu.pretend import DEVICE, Watch, watching

CONFIDENT = "teacher.head.heatmap_bias=-0.25"
"""A teacher so unsure that it decodes boxes everywhere without training."""


def tiny(name: str) -> Experiment:
    """A recipe with tiny networks."""
    experiment = RECIPES[name].build()
    sets = list(TINY_STUDENT if experiment.student else ())
    if experiment.teacher is not None:
        sets += TINY_TEACHER if experiment.teacher.voxel is None else TINY_VOXEL_TEACHER
    return override(experiment, sets)


def watched_step(experiment: Experiment, samples: int = 2, *, points: int = 2000, weightless: bool = False) -> Watch:
    """The second training step of an experiment; the first one fills caches."""
    dummy = DummyStep(experiment, samples, points=points)
    with _Weightless() if weightless else nullcontext(), watching() as watch:
        dummy.training.to(DEVICE)
        dummy.batch = dummy.batch.to(DEVICE)
        dummy.step()
        if dummy.batch.cameras is not None:  # as augmentation moves them: no pooling plan returns
            cameras = dummy.batch.cameras
            cameras = replace(cameras, bev_from_camera=cameras.bev_from_camera + 0.01)
            dummy.batch = replace(dummy.batch, cameras=cameras)
        for counter in (watch.mixings, watch.waits, watch.launches):
            counter.clear()
        dummy.step()
    return watch


def full(name: str) -> Experiment:
    """A recipe at its size, with a confident teacher and voxels convolved by plain PyTorch."""
    experiment = RECIPES[name].build()
    sets = [] if experiment.teacher is None else [CONFIDENT]
    if experiment.teacher is not None and experiment.teacher.voxel is not None:
        sets += ["teacher.voxel.backend=reference"]
    return override(experiment, sets)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", help="names or patterns; default: all")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="a change of the recipes, a.b=c")
    parser.add_argument("--lines", action="store_true")
    options = parser.parse_args(arguments)
    names = [name for name in RECIPES if any(fnmatch(name, pattern) for pattern in options.recipes or ("*",))]
    mixed = 0
    print("| recipe | mixings | waits | launches |\n|---|---|---|---|")
    for name in names:
        watch = watched_step(override(full(name), options.set), options.samples, points=20_000, weightless=True)
        mixed += watch.mixings.total()
        counts = [counter.total() for counter in (watch.mixings, watch.waits, watch.launches)]
        print(f"| {name} | " + " | ".join(f"{count:,}" for count in counts) + " |", flush=True)
        if options.lines:
            print(watch.report(200))
        del watch
        gc.collect()
    return int(bool(mixed))


if __name__ == "__main__":
    sys.exit(main())
