"""Distillation's gradient on the student's map stays within a share of the head's."""

import pytest
import torch

from dualdistill.train.step import DECAY, EVERY, GradientBound


def losses(head_gradient: float, distill_gradient: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A map of one cell, and two losses with these gradients on it."""
    canvas = torch.ones(1, 1, 1, 1, requires_grad=True)
    return head_gradient * canvas.sum(), distill_gradient * canvas.sum(), canvas


def test_where_the_heads_gradient_dominates_nothing_changes():
    bound = GradientBound(0.5)
    bound.update(*losses(2.0, 0.9))
    assert bound.factor == 1.0


@pytest.mark.parametrize("distill", [1.5, 10.0, 1e4])
def test_a_larger_gradient_is_scaled_to_the_share(distill):
    bound = GradientBound(0.5)
    bound.update(*losses(2.0, distill))
    assert bound.factor * distill == pytest.approx(0.5 * 2.0)


def test_the_running_means_weigh_a_measurement_by_its_age():
    bound = GradientBound(1.0)
    for _ in range(EVERY):
        bound.update(*losses(1.0, 10.0))
    bound.update(*losses(1.0, 20.0))
    old = DECAY**EVERY
    assert bound.factor == pytest.approx((1 + old) / (20 + 10 * old))


def test_a_distiller_that_does_not_reach_the_map_is_not_bounded():
    head, _, canvas = losses(1.0, 1.0)
    bound = GradientBound(0.5)
    bound.update(head, torch.ones(1, requires_grad=True).sum(), canvas)
    assert bound.factor == 1.0


def test_measuring_leaves_the_graph_for_the_backward_pass():
    head, distill, canvas = losses(1.0, 4.0)
    bound = GradientBound(0.5)
    bound.update(head, distill, canvas)
    (head + bound.factor * distill).backward()
    assert canvas.grad.item() == pytest.approx(1.5)


@pytest.mark.parametrize("share", [0.0, -1.0])
def test_a_share_that_is_not_positive_is_refused(share):
    with pytest.raises(ValueError, match="must be positive"):
        GradientBound(share)
