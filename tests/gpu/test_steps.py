"""A training step of each method on the pretended GPU: no CPU tensor meets a device tensor, few waits and launches."""

import pytest

from dualdistill.experiment.overrides import override
from dualdistill.recipes.catalogue import RECIPES
from dualdistill.train.step_cost import DummyStep
from tests.commands.conftest import TINY_STUDENT, TINY_TEACHER, TINY_VOXEL_TEACHER
from tests.gpu.pretend import DEVICE, Watch, watching

BUDGETS = {
    "student": (2, 1000),
    "teacher-centerpoint": (3, 900),
    "teacher-mvp": (3, 900),
    "label-encoder-centerpoint": (13, 1050),
    "dualdistill-centerpoint": (13, 2900),
    "dualdistill-mvp": (13, 2900),
    "distillbev-centerpoint": (6, 1700),
    "tigbev-centerpoint": (16, 1500),
    "x3kd-full-centerpoint": (6, 1600),
    "labeldistill-centerpoint": (21, 2000),
}
"""Waits of the host and kernel launches that a step of two samples may take; what was counted, launches rounded up."""


def watched_step(name: str, samples: int = 2) -> Watch:
    """The second training step of a recipe with tiny networks; the first one fills caches."""
    experiment = RECIPES[name].build()
    sets = list(TINY_STUDENT if experiment.student else ())
    if experiment.teacher is not None:
        sets += TINY_TEACHER if experiment.teacher.voxel is None else TINY_VOXEL_TEACHER
    dummy = DummyStep(override(experiment, sets), samples, points=2000)
    with watching() as watch:
        dummy.training.to(DEVICE)
        dummy.batch = dummy.batch.to(DEVICE)
        dummy.step()
        for counter in (watch.mixings, watch.waits, watch.launches):
            counter.clear()
        dummy.step()
    return watch


@pytest.mark.parametrize("name", BUDGETS)
def test_a_step_mixes_no_devices_and_keeps_its_budget(name):
    watch = watched_step(f"synthetic/{name}")
    waits, launches = BUDGETS[name]
    assert not watch.mixings, watch.report()
    assert watch.waits.total() <= waits, watch.report()
    assert watch.launches.total() <= launches, watch.report()
