"""Every benchmark by name, with its targets."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dualdistill.report.timing import Row


@dataclass(frozen=True, kw_only=True)
class Target:
    """A target that is checked by machine: of the rows it selects, the best must keep every bound."""

    variant: str
    """Text in the name of the rows that are meant."""
    setting: str = ""
    """Text in their setting; empty: any."""
    ratio: float | None = None
    """At least so many times faster than the reference."""
    milliseconds: float | None = None
    """At most."""
    peak_mib: float | None = None
    """At most."""
    memory_share: float | None = None
    """Peak memory is at most this part of the reference's, which is the first row of its setting."""
    difference: float | None = None
    """At most, relative."""

    def kept(self, rows: Sequence[Row]) -> bool | None:
        """Whether some selected row keeps every bound; None where no row is selected."""
        selected = [row for row in rows if self.variant in row.name and self.setting in row.setting]
        first = {row.setting: row for row in reversed(rows)}
        return any(self._kept_by(row, first[row.setting]) for row in selected) if selected else None

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
    """One entry of the catalogue."""

    summary: str
    """What is compared, for the list and the page."""
    run: Callable[[bool], list[Row]]
    """Measures everything; with True, at a size that takes seconds and only informs."""
    goal: str = ""
    """The targets in words, set for two CPU cores."""
    targets: tuple[Target, ...] = ()
    """The same, checked at full size."""


def lazy(module: str) -> Callable[[bool], list[Row]]:
    """`run` of `benchmarks.<module>`, imported when called: a package that it lacks does not affect the others."""

    def run(quick: bool) -> list[Row]:
        return importlib.import_module(f"benchmarks.{module}").run(quick)

    return run


BENCHMARKS: dict[str, Benchmark] = {
    "pooling": Benchmark(
        summary="lift-splat pooling as a bag sum (no frustum tensor), against the cumulative sum trick; index plan",
        run=lazy("pooling"),
        goal="200x (forward) and 75x (with backward) faster than the cumulative sum trick, a twentieth of its memory",
        targets=(
            Target(variant="channels-last", setting="forward (", ratio=200, difference=1e-4),
            Target(variant="channels-last", setting="forward + backward", ratio=75, memory_share=1 / 20),
        ),
    ),
    "pillars": Benchmark(
        summary="250,000 points to a canvas by the split layer, against padded voxels and the plain definition",
        run=lazy("pillars"),
        goal="3x (forward) and 10x (forward + backward in training) faster than the padded network",
        targets=(
            Target(variant="split layer", setting="forward, evaluation", ratio=3),
            Target(variant="split layer", setting="forward + backward", ratio=10),
            Target(variant="split layer", setting="same results", difference=1e-4),
        ),
    ),
    "boxes": Benchmark(
        summary="rotated IoU and NMS of 1000 boxes at once, against compiled loops over pairs; circle NMS of 500",
        run=lazy("boxes"),
        goal="rotated IoU and NMS 10x faster than the loops; circle NMS below a millisecond",
        targets=(
            Target(variant="all pairs at once", setting="rotated IoU", ratio=10, difference=1e-5),
            Target(variant="all pairs at once", setting="rotated NMS", ratio=10, difference=0.0),
            Target(variant="all pairs at once", setting="circle NMS", milliseconds=1.0, difference=0.0),
        ),
    ),
    "distillation": Benchmark(
        summary="DualDistill's losses, forward and backward, against the released formulation and the student's step; "
        "distilled steps with a live, a bf16 and a cached teacher",
        run=lazy("distillation"),
        goal="distiller at most 10% of the student's step; a step distilled from the cache at most 1.15x one without",
        targets=(
            Target(variant="DualDistill", setting="beside the student's step", ratio=10),
            Target(variant="DualDistill", setting="forward and backward", difference=1e-3),
            Target(variant="teacher cached", ratio=1 / 1.15),
        ),
    ),
    "evaluation": Benchmark(
        summary="nuScenes metrics for a result of full val size, against nuscenes-devkit (if it is not installed, the "
        "published loops); reading the result file; from file to metrics",
        run=lazy("evaluation"),
        goal="accumulate and score 150x faster than the devkit, equal to 1e-10; reading 3x faster; from file to "
        "metrics in 30 s",
        targets=(
            Target(variant="on arrays", ratio=150, difference=1e-10),
            Target(variant="typed records to columns", ratio=3),
            Target(variant="dualdistill", setting="from file to metrics", milliseconds=30_000),
        ),
    ),
    "indexing": Benchmark(
        summary="indexing tables of trainval size, against the devkit's NuScenes(version=...) (if it is not installed, "
        "plain records); opening the index; memory of a worker",
        run=lazy("indexing"),
        goal="made in 30 s with a fifth of the memory; opened in 0.1 s; a worker adds less than 200 MB",
        targets=(
            Target(variant="index made and opened", milliseconds=30_000, memory_share=1 / 5),
            Target(variant="memory-mapped columns", milliseconds=100),
            Target(variant="read in a worker", peak_mib=190),
        ),
    ),
    "images": Benchmark(
        summary="camera files to normalised network input, against the PIL path of other code bases; same geometry",
        run=lazy("images"),
        goal="3x faster at 1600x900 to 704x256",
        targets=(Target(variant="decoded smaller", setting="at test time", ratio=3),),
    ),
    "scaling": Benchmark(
        summary="a training step of the nuScenes networks at half size against cameras, image width, depth bins, BEV "
        "cells, batch and points, with the exponents of time and memory; steps of different recipes",
        run=lazy("scaling"),
    ),
    "inference": Benchmark(
        summary="the deployed student: eager layouts and poolings, folded, bf16, inductor, ONNX Runtime, OpenVINO",
        run=lazy("inference"),
        goal="best variant at least 3.5x faster than eager fp32 (set on a CPU with bf16), ONNX Runtime at least 1.75x",
        targets=(
            Target(variant="", setting="inference", ratio=3.5),
            Target(variant="ONNX Runtime", ratio=1.75, difference=1e-4),
        ),
    ),
}
"""In the order of the page."""
