"""The distiller and its released formulation are one function; benchmarks of steps run at a tiny size."""

import math

import pytest

from dualdistill.bench.distillation import Lesson, distiller_rows, step_rows
from dualdistill.bench.scaling import exponent, scaling_rows
from dualdistill.recipes.catalogue import find
from dualdistill.recipes.experiment import override
from tests.workflows.conftest import TINY_STUDENT, TINY_TEACHER


@pytest.mark.parametrize(("samples", "boxes"), [(1, 12), (2, 5), (1, 0), (1, 1)])
def test_the_released_formulation_gives_the_same_losses_and_gradients(samples, boxes):
    experiment = override(find("synthetic/dualdistill-centerpoint").build(), [*TINY_STUDENT, *TINY_TEACHER])
    lesson = Lesson(experiment, samples=samples, boxes=boxes, points=1000)
    rows = distiller_rows(lesson, "tiny", repeats=1)
    (ours,) = (row for row in rows if row.name == "DualDistill" and row.difference is not None)
    assert ours.difference < 1e-3


def test_taught_steps_run_live_in_half_precision_and_from_memory():
    experiment = override(find("synthetic/dualdistill-centerpoint").build(), [*TINY_STUDENT, *TINY_TEACHER])
    rows = step_rows(Lesson(experiment, boxes=3, points=1000), "tiny", repeats=1)
    assert rows[0].name == "student alone"
    assert len(rows) == 4


def test_an_exponent_is_the_slope_in_logarithms():
    assert exponent((1, 2, 4), [3.0, 6.0, 12.0]) == pytest.approx(1)
    assert exponent((10, 20), [5.0, 5.0]) == pytest.approx(0)
    assert exponent((2, 3, 7), [8.0, 27.0, 343.0]) == pytest.approx(3)


def test_a_table_of_sizes_tells_its_exponent():
    work = {1: 100_000, 4: 400_000}
    rows = scaling_rows("work", (1, 4), lambda n: lambda: math.fsum(range(work[n])) and None, repeats=3)
    assert rows[0].ratio == 1
    assert "cost ~ work^" in rows[-1].name
