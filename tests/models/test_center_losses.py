import math

import pytest
import torch
from torch.testing import assert_close

from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.center_training import center_losses, center_targets
from dualdistill.ops.focal import gaussian_focal, probability
from dualdistill.structures import Boxes, HeadOutput, weighted_sum
from tests.models.center_scenes import boxes_of, random_boxes

GRID = BevGrid.around(51.2, 0.8)
CONFIG = CenterHeadConfig()
CAR = (10.3, -4.7, -0.9, 4.6, 1.9, 1.6, 0.3, 3.0, 0.5)


def fresh(batch: int = 1, shape: tuple[int, int] = (128, 128)) -> HeadOutput:
    """What a head says before it has learnt anything."""
    return HeadOutput(heatmap=torch.full((batch, 10, *shape), -2.19), regression=torch.zeros(batch, 6, 10, *shape))


def test_one_car_costs_the_worked_loss():
    output, targets = fresh(), center_targets((boxes_of([CAR], [0]),), GRID, CONFIG)
    cars = gaussian_focal(probability(output.heatmap), targets.heatmap)[:, 0]
    peak = targets.heatmap[:, 0] == 1
    assert_close(cars[~peak].sum(), torch.tensor(17.5987), rtol=1e-5, atol=0)
    assert_close(cars[peak].sum(), torch.tensor(1.8571), rtol=1e-4, atol=0)
    losses = center_losses(output, targets)
    empty = 17.6084  # of a class without objects; a task divides by its peaks, at least 1
    assert_close(losses["heatmap"], torch.tensor(19.4558 + 9 * empty), rtol=1e-5, atol=0)
    box = weighted_sum(losses, CONFIG.weights) - losses["heatmap"]
    assert_close(box, torch.tensor(1.62203), rtol=1e-4, atol=0)


def test_without_boxes_only_the_heatmap_costs():
    output = fresh(2)
    output.regression.requires_grad_()
    losses = center_losses(output, center_targets((Boxes.empty(), Boxes.empty()), GRID, CONFIG))
    assert_close(losses.pop("heatmap"), torch.tensor(2 * 10 * 17.6084), rtol=1e-5, atol=0)
    assert all(loss == 0 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert not output.regression.grad.any()


def test_boxes_are_averaged_over_the_batch_and_not_per_sample():
    boxes = boxes_of([CAR], [0])
    one = center_losses(fresh(), center_targets((boxes,), GRID, CONFIG))
    two = center_losses(fresh(2), center_targets((boxes, boxes), GRID, CONFIG))
    for name in one.keys() - {"heatmap"}:
        assert_close(two[name], one[name], rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", ["known", "unknown"])
def test_an_unknown_velocity_costs_nothing_and_leaves_the_gradient_finite(kind):
    known = (-8.0, 3.0, 0.0, 4.0, 2.0, 1.5, 1.0, 2.0, 0.0)
    rows = [known, (*CAR[:7], math.nan, math.nan)] if kind == "unknown" else [known, (*CAR[:7], 0.0, 0.0)]
    output = fresh()
    output.regression.requires_grad_()
    losses = center_losses(output, center_targets((boxes_of(rows, [0, 0]),), GRID, CONFIG))
    assert_close(losses["box/velocity"], torch.tensor(2.0 / (2 + 1e-4)))
    sum(losses.values()).backward()
    assert output.regression.grad.isfinite().all()
    assert not output.regression.grad[0, 0, 8:, 58, 76].any()


def test_predictions_are_not_changed():
    output = fresh()
    before = output.heatmap.clone(), output.regression.clone()
    center_losses(output, center_targets((random_boxes(20, seed=0),), GRID, CONFIG))
    assert torch.equal(output.heatmap, before[0])
    assert torch.equal(output.regression, before[1])


def test_half_precision_predictions_are_judged_in_single_precision():
    output = fresh()
    half = HeadOutput(heatmap=output.heatmap.bfloat16(), regression=output.regression.bfloat16())
    losses = center_losses(half, center_targets((random_boxes(20, seed=0),), GRID, CONFIG))
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
