"""Learning rates, momentum and parameter groups."""

import pytest
import torch
from torch import nn

from dualdistill.experiment.training import OptimiserConfig
from dualdistill.train.state import learning_rate, momentum, parameter_groups

CYCLE = OptimiserConfig(schedule="cyclic", learning_rate=1e-4, cycle_peak=10, cycle_rise=0.4)


@pytest.mark.parametrize(
    ("fraction", "rate", "beta"),
    [
        (0.0, 1e-4, 0.9),
        (0.1, 2.318e-4, 0.88613),
        (0.2, 5.5e-4, 0.85263),
        (0.4, 1e-3, 0.80526),
        (0.6, 7.5e-4, 0.82895),
        (0.8, 2.5001e-4, 0.87632),
        (0.9, 6.70e-5, 0.89365),
        (1.0, 1e-8, 0.9),
    ],
)
def test_the_cycle_passes_through_the_published_rates(fraction, rate, beta):
    """docs/methods/centerpoint.md#cyclic-schedule"""
    assert learning_rate(CYCLE, round(1000 * fraction), 1000) == pytest.approx(rate, rel=1e-3)
    assert momentum(CYCLE, round(1000 * fraction), 1000) == pytest.approx(beta, rel=1e-4)


def test_warm_up_rises_linearly_from_a_thousandth():
    config = OptimiserConfig(learning_rate=2e-4, warmup_steps=500, warmup_ratio=1e-3)
    rates = [learning_rate(config, step, 100_000) for step in range(501)]
    assert rates[0] == pytest.approx(2e-7)
    assert rates[500] == pytest.approx(2e-4)
    rises = torch.tensor(rates).diff()
    torch.testing.assert_close(rises, rises.mean().expand(500), rtol=1e-2, atol=0)


def test_the_rate_falls_tenfold_at_epochs_16_and_22_of_24():
    config = OptimiserConfig(learning_rate=2e-4, warmup_steps=0)
    assert [learning_rate(config, epoch, 24) for epoch in (15, 16, 21, 22)] == pytest.approx([2e-4, 2e-5, 2e-5, 2e-6])


def test_decay_spares_exactly_the_parameters_a_module_names():
    class Part(nn.Linear):
        def no_weight_decay(self):
            return {"bias"}

    part, plain = Part(2, 3), nn.Linear(3, 4)
    decayed, exempt = parameter_groups(part, 0.01)
    assert exempt["weight_decay"] == 0
    assert decayed["weight_decay"] == 0.01
    assert [id(p) for p in exempt["params"]] == [id(part.bias)]
    assert [id(p) for p in decayed["params"]] == [id(part.weight)]
    (decayed,) = parameter_groups(plain, 0.01)
    assert {id(p) for p in decayed["params"]} == {id(plain.weight), id(plain.bias)}


def test_frozen_parameters_are_in_no_group():
    part = nn.Linear(2, 3).requires_grad_(False)
    assert parameter_groups(part, 0.01)[0]["params"] == []


@pytest.mark.parametrize("wrong", [{"learning_rate": 0.0}, {"drops": (16.0,)}, {"cycle_rise": 1.0}])
def test_nonsense_is_refused_when_it_is_said(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OptimiserConfig(**wrong)
