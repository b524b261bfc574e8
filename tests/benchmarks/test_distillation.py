"""The distiller and its released formulation are one function; benchmarks of steps run at a tiny size."""

import pytest

from benchmarks.distillation import DistilledStep, distiller_rows, step_rows
from dualdistill.experiment.plain import override
from dualdistill.recipes.catalogue import find
from tests.commands.conftest import TINY_STUDENT, TINY_TEACHER


@pytest.mark.parametrize(("samples", "boxes"), [(1, 12), (2, 5), (1, 0), (1, 1)])
def test_the_released_formulation_gives_the_same_losses_and_gradients(samples, boxes):
    experiment = override(find("synthetic/dualdistill-centerpoint").build(), [*TINY_STUDENT, *TINY_TEACHER])
    training = DistilledStep(experiment, samples=samples, boxes=boxes, points=1000)
    rows = distiller_rows(training, "tiny", repeats=1)
    (ours,) = (row for row in rows if row.name == "DualDistill" and row.difference is not None)
    assert ours.difference < 1e-3


def test_distilled_steps_run_with_a_live_a_bf16_and_a_cached_teacher():
    experiment = override(find("synthetic/dualdistill-centerpoint").build(), [*TINY_STUDENT, *TINY_TEACHER])
    rows = step_rows(DistilledStep(experiment, boxes=3, points=1000), "tiny", repeats=1)
    assert rows[0].name == "student alone"
    assert len(rows) == 4
