"""Every benchmark by name."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.measure import Row


@dataclass(frozen=True, kw_only=True)
class Target:
    """A target that a machine can check: of the rows it names, the best must keep every bound."""

    formulation: str
    """Text in the name of the rows that are meant."""
    benchmark: str = ""
    """Text in their benchmark (setting); empty: any."""
    ratio: float | None = None
    """At least so many times faster than the reference."""
    milliseconds: float | None = None
    """At most."""
    peak_mib: float | None = None
    """At most."""
    memory_share: float | None = None
    """Peak memory is at most this part of the reference's, which is the first row of its benchmark."""
    difference: float | None = None
    """At most, relative."""

    def kept(self, rows: Sequence[Row]) -> bool | None:
        """None where no row is meant."""
        meant = [row for row in rows if self.formulation in row.name and self.benchmark in row.benchmark]
        first = {row.benchmark: row for row in reversed(rows)}
        return any(self._kept_by(row, first[row.benchmark]) for row in meant) if meant else None

    def _kept_by(self, row: Row, reference: Row) -> bool:
        share = self.memory_share
        at_most = [
            (row.peak_mib, None if share is None else share * (reference.peak_mib or 0.0)),
            (row.milliseconds, self.milliseconds),
            (row.peak_mib, self.peak_mib),
            (row.difference, self.difference),
        ]
        fast = self.ratio is None or (row.ratio is not None and row.ratio >= self.ratio)
        return fast and all(bound is None or (value is not None and value <= bound) for value, bound in at_most)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What can be measured."""

    summary: str
    """What is compared, for the list and the page."""
    run: Callable[[bool], list[Row]]
    """Measures; given true, at a size that takes seconds and only informs."""
    target: str = ""
    """What was promised on two cores."""
    promises: tuple[Target, ...] = ()
    """The same, to be checked at full size."""


def lazy(module: str) -> Callable[[bool], list[Row]]:
    """`run` of `benchmarks.<module>`, imported when it is measured: the list is instant, and a package that one
    benchmark lacks is no trouble to the others."""

    def run(quick: bool) -> list[Row]:
        return importlib.import_module(f"benchmarks.{module}").run(quick)

    return run


BENCHMARKS: dict[str, Benchmark] = {
    "pooling": Benchmark(
        summary="lift-splat pooling as a bag sum without a frustum tensor, against the cumulative sum trick; its plan",
        run=lazy("pooling"),
        target="forward 200x, forward + backward 75x the cumulative sum trick, a twentieth of its memory",
        promises=(
            Target(formulation="channels-last", benchmark="forward (", ratio=200, difference=1e-4),
            Target(formulation="channels-last", benchmark="forward + backward", ratio=75, memory_share=1 / 20),
        ),
    ),
    "pillars": Benchmark(
        summary="250,000 points to a canvas by the split layer, against padded voxels and the plain definition",
        run=lazy("pillars"),
        target="forward 3x, forward + backward in training 10x the padded network",
        promises=(
            Target(formulation="split layer", benchmark="forward, evaluation", ratio=3),
            Target(formulation="split layer", benchmark="forward + backward", ratio=10),
            Target(formulation="split layer", benchmark="same results", difference=1e-4),
        ),
    ),
    "boxes": Benchmark(
        summary="rotated IoU and NMS of 1000 boxes at once, against compiled loops over pairs; circle NMS of 500",
        run=lazy("boxes"),
        target="rotated IoU and NMS 10x the loops; circle NMS below a millisecond",
        promises=(
            Target(formulation="all pairs at once", benchmark="rotated IoU", ratio=10, difference=1e-5),
            Target(formulation="all pairs at once", benchmark="rotated NMS", ratio=10, difference=0.0),
            Target(formulation="bits", benchmark="circle NMS", milliseconds=1.0, difference=0.0),
        ),
    ),
    "distillation": Benchmark(
        summary="DualDistill's losses, forward and backward, against the released formulation and the student's step; "
        "taught steps with a live, a bf16 and a cached teacher",
        run=lazy("distillation"),
        target="distiller at most 10% of the student's step; a step taught from the cache at most 1.15x an untaught",
        promises=(
            Target(formulation="DualDistill", benchmark="beside the student's step", ratio=10),
            Target(formulation="DualDistill", benchmark="forward and backward", difference=1e-3),
            Target(formulation="teacher cached", ratio=1 / 1.15),
        ),
    ),
    "evaluation": Benchmark(
        summary="nuScenes metrics of a full-val-sized result against nuscenes-devkit (the published loops without it); "
        "reading the result file; from file to metrics",
        run=lazy("evaluation"),
        target="accumulate and score 150x the devkit, equal to 1e-10; reading 3x; from file to metrics in 30 s",
        promises=(
            Target(formulation="on arrays", ratio=150, difference=1e-10),
            Target(formulation="typed records to columns", ratio=3),
            Target(formulation="dualdistill", benchmark="from file to metrics", milliseconds=30_000),
        ),
    ),
    "indexing": Benchmark(
        summary="an index of trainval-sized tables against NuScenes(version=...) of the devkit (plain records without "
        "it), opening it, and the memory of a worker",
        run=lazy("indexing"),
        target="made in 30 s with a fifth of the memory; opened in 0.1 s; a worker adds less than 200 MB",
        promises=(
            Target(formulation="index made and opened", milliseconds=30_000, memory_share=1 / 5),
            Target(formulation="memory-mapped columns", milliseconds=100),
            Target(formulation="looked at in a worker", peak_mib=190),
        ),
    ),
    "images": Benchmark(
        summary="camera files to normalised network input against the peers' PIL path, same geometry",
        run=lazy("images"),
        target="3x at 1600x900 to 704x256",
        promises=(Target(formulation="decoded smaller", benchmark="at test time", ratio=3),),
    ),
    "scaling": Benchmark(
        summary="a training step of the nuScenes networks at half size against cameras, image width, depth bins, BEV "
        "cells, batch and points, with the exponents of time and memory; steps of different recipes",
        run=lazy("scaling"),
    ),
    "inference": Benchmark(
        summary="the deployed student: eager layouts and poolings, folded, bf16, inductor, ONNX Runtime, OpenVINO",
        run=lazy("inference"),
        target="the best form at least 3.5x over eager fp32 (set on a CPU with bf16), ONNX Runtime at least 1.75x",
        promises=(
            Target(formulation="", benchmark="inference", ratio=3.5),
            Target(formulation="ONNX Runtime", ratio=1.75, difference=1e-4),
        ),
    ),
}
"""In the order of the page. An entry: "pillars": Benchmark(summary=…, run=lazy("pillars"), target=…, promises=(…,))."""
