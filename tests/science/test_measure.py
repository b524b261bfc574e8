"""What is measured of a run beyond the official metrics."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dualdistill.evaluate.metrics import detection_metrics
from dualdistill.science.measure import DepthErrors, Likeness, distance_bands
from tests.evaluate.evaluation_worlds import noisy_detections, random_boxes, world_of


def test_maps_that_differ_by_rotation_scale_and_shift_are_alike():
    a = torch.randn(200, 6, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    likeness = Likeness()
    likeness.add(a, 3 * a @ rotation + 2)
    assert likeness.cka == pytest.approx(1)


def test_likeness_is_what_the_kernel_formula_says_and_batches_add_up():
    a, b = torch.randn(60, 4, dtype=torch.float64), torch.randn(60, 7, dtype=torch.float64)
    b[:, :2] += a[:, :2]
    parts = Likeness()
    for rows in (slice(0, 25), slice(25, 60)):
        parts.add(a[rows], b[rows])
    centre = torch.eye(60, dtype=torch.float64) - 1 / 60
    of_a, of_b = centre @ a @ a.T @ centre, centre @ b @ b.T @ centre
    assert parts.cka == pytest.approx(float((of_a * of_b).sum() / (of_a.norm() * of_b.norm())))


def test_constant_or_unseen_maps_have_no_likeness():
    nothing, constant = Likeness(), Likeness()
    constant.add(torch.ones(5, 2, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64))
    assert np.isnan(nothing.cka)
    assert np.isnan(constant.cka)


def test_depth_error_is_that_of_the_expected_depth_where_there_is_a_label():
    depths = torch.tensor([1.0, 2.0, 3.0])  # bins from 1, 2, 3: middles 1.5, 2.5, 3.5
    logits = torch.full((1, 1, 3, 1, 3), -1e9)
    logits[0, 0, 0, 0, 0] = 0.0  # 1.5 m
    logits[0, 0, [0, 2], 0, 1] = 0.0  # between 1.5 and 3.5 m
    logits[0, 0, 2, 0, 2] = 0.0  # no label there
    errors = DepthErrors()
    errors.add(logits, depths, torch.tensor([[[[1.5, 12.5, 0.0]]]]))
    record = errors.record()
    assert record.cells == 2
    assert_close(record.mean_absolute, 5.0)
    assert record.bands == {"0-10": 0.0, "10-20": 10.0}
    assert DepthErrors().record() is None


def test_one_band_around_everything_scores_as_the_benchmark_does():
    world = world_of(random_boxes(0), samples=6)
    detections = noisy_detections(world.boxes, 1)
    (band,) = distance_bands(world, detections, (0.0, 100.0))
    whole = detection_metrics(world, detections)
    assert band.mean_ap == pytest.approx(whole.mean_ap)
    assert sum(band.objects.values()) == len(world.boxes)


def test_every_object_is_in_one_band_and_an_empty_band_has_no_score():
    world = world_of(random_boxes(0), samples=6)
    bands = distance_bands(world, noisy_detections(world.boxes, 1), (0.0, 8.0, 16.0, 40.0, 50.0))
    assert sum(sum(band.objects.values()) for band in bands) == len(world.boxes)
    assert bands[-1].mean_ap is None
    assert bands[-1].objects == {}
