"""A training step of each method on the pretended GPU: no CPU tensor meets a device tensor, few waits and launches."""

import pytest

from tests.gpu.count import tiny, watched_step

BUDGETS = {
    "student": (2, 1100),
    "teacher-centerpoint": (2, 900),
    "teacher-mvp": (2, 900),
    "label-encoder-centerpoint": (5, 1050),
    "dualdistill-centerpoint": (11, 2700),
    "dualdistill-mvp": (11, 2700),
    "distillbev-centerpoint": (5, 1800),
    "tigbev-centerpoint": (5, 1600),
    "x3kd-full-centerpoint": (5, 1700),
    "labeldistill-centerpoint": (8, 2100),
}
"""Waits of the host and kernel launches that a step of two samples may take; what was counted, launches rounded up."""


@pytest.mark.parametrize("name", BUDGETS)
def test_a_step_mixes_no_devices_and_keeps_its_budget(name):
    watch = watched_step(tiny(f"synthetic/{name}"))
    waits, launches = BUDGETS[name]
    assert not watch.mixings, watch.report()
    assert watch.waits.total() <= waits, watch.report()
    assert watch.launches.total() <= launches, watch.report()
