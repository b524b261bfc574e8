"""Laws of the module that a training step calls."""

from torch import nn

from dualdistill.experiment.plain import override
from dualdistill.recipes.catalogue import find
from dualdistill.train.step_cost import DummyStep
from tests.commands.conftest import TINY_STUDENT, TINY_TEACHER


def test_every_trained_batch_norm_counts_a_step_and_no_frozen_one():
    dummy = DummyStep(override(find("synthetic/dualdistill-centerpoint").build(), [*TINY_STUDENT, *TINY_TEACHER]))
    training, batch = dummy.training, dummy.batch
    norms = [m for part in training.learners for m in part.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    frozen = [m for m in training.teacher.module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for step in (1, 2):
        training(batch)
        assert {int(norm.num_batches_tracked) for norm in norms} == {step}
    training.eval()(batch)
    assert {int(norm.num_batches_tracked) for norm in norms} == {2}
    assert {int(norm.num_batches_tracked) for norm in frozen} == {0}
