"""A training step of each method on the pretended GPU: no CPU tensor meets a device tensor, few waits and launches."""

import pytest

from tests.gpu.count import tiny, watched_step

BUDGETS = {
    "student": (2, 750),
    "teacher-centerpoint": (2, 580),
    "teacher-mvp": (2, 580),
    "label-encoder-centerpoint": (5, 780),
    "dualdistill-centerpoint": (11, 2100),
    "dualdistill-mvp": (11, 2100),
    "distillbev-centerpoint": (5, 1350),
    "tigbev-centerpoint": (4, 1150),
    "x3kd-full-centerpoint": (5, 1250),
    "labeldistill-centerpoint": (8, 1650),
}
"""Waits of the host and kernel launches that a step of two samples may take; what was counted, launches rounded up."""


@pytest.mark.parametrize("name", BUDGETS)
def test_a_step_mixes_no_devices_and_keeps_its_budget(name):
    watch = watched_step(tiny(f"synthetic/{name}"))
    waits, launches = BUDGETS[name]
    assert not watch.mixings, watch.report()
    assert watch.waits.total() <= waits, watch.report()
    assert watch.launches.total() <= launches, watch.report()
