"""The projector: orthonormal whatever the optimiser does, unless it is the released one."""

import pytest
import torch
from torch.testing import assert_close

from dualdistill.distill.align import SemiOrthogonal, cayley, upsample


def released_rate(step: int) -> float:
    """Linear warm-up over 500 steps to 2e-4 from a thousandth of it (docs/methods/dualdistill.md#training-recipe)."""
    return 2e-4 * (1 - (1 - step / 500) * (1 - 1e-3))


def trained(projector: SemiOrthogonal, steps: int) -> SemiOrthogonal:
    """After some steps towards noise, weight decay on everything: the released optimiser."""
    optimizer = torch.optim.AdamW(projector.parameters(), weight_decay=0.01)
    outputs, inputs = projector.raw.shape
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = released_rate(step)
        optimizer.zero_grad()
        loss = (projector(torch.randn(2, inputs, 2, 2)) - torch.randn(2, outputs, 2, 2)).square().mean()
        loss.backward()
        optimizer.step()
    return projector


def input_gradient(projector: SemiOrthogonal) -> torch.Tensor:
    features = torch.randn(1, projector.raw.shape[1], 2, 2, requires_grad=True)
    projector(features).square().sum().backward()
    assert features.grad is not None
    return features.grad


@pytest.mark.parametrize("steps", [0, 200])
def test_rows_are_orthonormal_before_and_after_training_with_weight_decay(steps):
    projector = SemiOrthogonal(48, 24)
    start = projector.weight.detach().clone()
    weight = trained(projector, steps).weight.detach()
    projection = weight.mT @ weight

    assert projector.orthogonality_error() < 1e-5
    assert_close(torch.linalg.svdvals(weight), torch.ones(24), rtol=0, atol=1e-4)
    assert abs(projection.trace().item() - 24) < 1e-3
    assert_close(projection @ projection, projection, rtol=0, atol=1e-5)
    assert input_gradient(projector).abs().max() > 1e-3
    assert (steps == 0) == torch.equal(weight, start)


def test_the_released_projector_is_alive_for_seven_steps_and_dead_at_the_eighth():
    torch.manual_seed(0)
    alive = trained(SemiOrthogonal(48, 24, "householder"), 7)
    assert alive.orthogonality_error() < 1e-5
    torch.manual_seed(0)
    dead = trained(SemiOrthogonal(48, 24, "householder"), 8)
    assert dead.raw.diagonal().abs().max() == torch.tensor(0.99999994)
    assert dead.largest_entry() == 0
    assert not input_gradient(dead).any()
    assert dead.orthogonality_error() == 1  # the same figures raise the alarm: 0 where it is right


@pytest.mark.parametrize("shape", [(12, 5), (12, 12), (5, 12)])
def test_whatever_the_raw_parameter_the_short_side_is_orthonormal(shape):
    projector = SemiOrthogonal(*shape)
    with torch.no_grad():
        projector.raw.normal_(std=10.0)
    weight = projector.weight
    short = weight @ weight.mT if shape[0] >= shape[1] else weight.mT @ weight
    assert_close(short, torch.eye(min(shape)), rtol=0, atol=1e-5)


def test_cayley_solves_the_small_system_and_gets_the_large_ones_columns():
    raw = torch.randn(9, 4, dtype=torch.float64)
    square = torch.nn.functional.pad(raw, (0, 5))
    # The zero block of the skew matrix: the corner that no column of raw reaches.
    skew = (square - square.mT) / 2
    expected = torch.linalg.solve(torch.eye(9) + skew, torch.eye(9) - skew)[:, :4]
    assert_close(cayley(raw), expected)
    assert torch.autograd.gradcheck(cayley, raw.requires_grad_())


def test_projecting_then_enlarging_is_enlarging_then_projecting():
    projector = SemiOrthogonal(32, 16)
    with torch.no_grad():
        projector.gain.uniform_(0.5, 2)
        projector.bias.normal_()
    features = torch.randn(2, 32, 8, 8)
    small_first = upsample(projector(features), (32, 32))
    assert_close(small_first, projector(upsample(features, (32, 32))), rtol=0, atol=1e-5)


def test_it_stays_in_float32_under_autocast():
    projector = SemiOrthogonal(12, 5)
    features = torch.randn(1, 12, 3, 3)
    expected = projector(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(projector(features), expected)
        assert projector.weight.dtype == torch.float32
