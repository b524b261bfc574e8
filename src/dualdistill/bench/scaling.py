"""How the cost of a training step grows with the size of the problem: one thing varied, the others kept.

The exponent k of each table is the slope of log(milliseconds) against log(size): cost ~ size^k between the sizes
measured. 1 is proportional, 0 means that something else decides. It is written in the row of the largest size.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from dualdistill.bench.measure import Formulation, Row, measure
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.recipes.catalogue import find
from dualdistill.recipes.experiment import Experiment
from dualdistill.structures import Batch, weighted_sum
from dualdistill.train.step import Detector, channels_last, training_losses
from dualdistill.workflows.stand_in import stand_in

Step = Callable[[], None]


def run(quick: bool) -> list[Row]:
    """One table for each of `VARIED`; quick: two sizes of each, measured once."""
    rows = []
    for name, (sizes, build) in VARIED.items():
        kept = (sizes[0], sizes[-1]) if quick else sizes
        rows += scaling_rows(name, kept, build, repeats=1 if quick else 5)
    return rows


def scaling_rows(name: str, sizes: tuple[int, ...], build: Callable[[int], Step], *, repeats: int) -> list[Row]:
    """Steps of each size; their ratios are to the smallest."""
    rows = measure(
        f"scaling with {name} ({torch.get_num_threads()} threads)",
        [Formulation(name=f"{name} {size}", run=build(size)) for size in sizes],
        repeats=repeats,
    )
    slope = exponent(sizes, [row.milliseconds for row in rows])
    return [*rows[:-1], replace(rows[-1], name=f"{rows[-1].name} (cost ~ {name}^{slope:.2f})")]


def exponent(sizes: tuple[int, ...], costs: list[float]) -> float:
    """Slope of the least-squares line through (log size, log cost)."""
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    rise = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return rise / sum((a - middle_x) ** 2 for a in x)


def _step(detector: torch.nn.Module, batch: Batch) -> Step:
    channels_last(detector.train())
    assert isinstance(detector, Detector)
    weights = detector.weights

    def step() -> None:
        detector.zero_grad()
        weighted_sum(training_losses(detector, None, batch), weights).backward()

    return step


def _student(cameras: int = 6, width: int = 192, bins: int = 59, cells: int = 48, samples: int = 1) -> Step:
    """Of the synthetic student."""
    experiment: Experiment = find("synthetic/student").build()
    config = experiment.student
    assert config is not None
    low = config.lift.depth_range[0]
    lift = replace(config.lift, depth_range=(low, 60.0), depth_step=(60.0 - low) / bins)
    bev = replace(config.bev, cell=2 * config.bev.reach / cells)
    data = replace(experiment.data, image_size=(width // 3, width), depth_range=lift.depth_range)
    torch.manual_seed(0)
    return _step(BevDepth(replace(config, lift=lift, bev=bev)), stand_in(data, samples, cameras=cameras))


def _teacher(points: int) -> Step:
    """Of the synthetic teacher."""
    experiment = find("synthetic/teacher-centerpoint").build()
    assert experiment.teacher is not None
    torch.manual_seed(0)
    return _step(CenterPoint(experiment.teacher), stand_in(experiment.data, points=points))


VARIED: dict[str, tuple[tuple[int, ...], Callable[[int], Step]]] = {
    "cameras": ((2, 4, 8), lambda n: _student(cameras=n)),
    "image width": ((96, 192, 384), lambda n: _student(width=n)),
    "depth bins": ((30, 59, 118), lambda n: _student(bins=n)),
    "BEV cells a side": ((24, 48, 96), lambda n: _student(cells=n)),
    "batch": ((1, 2, 4), lambda n: _student(samples=n)),
    "points": ((10_000, 40_000, 160_000), _teacher),
}
"""What is varied: its sizes, and a step of one size. Images keep their shape, so width counts twice."""
