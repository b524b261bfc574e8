"""Laws of the detection metrics; their equality with the devkit is in `tests/parity`."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dualdistill.evaluate.ground_truth import is_evaluated
from dualdistill.evaluate.metrics import (
    DetectionMetrics,
    average_matches,
    detection_metrics,
    match_all,
    metrics_summary,
)
from dualdistill.evaluate.protocol import TP_ERRORS
from dualdistill.evaluate.records import Detections
from dualdistill.structures import CLASSES
from tests.evaluate.evaluation_worlds import boxes_of, noisy_detections, oracle, random_boxes, world_of


def assert_same(one: DetectionMetrics, other: DetectionMetrics) -> None:
    np.testing.assert_allclose(one.ap, other.ap, atol=1e-12)
    np.testing.assert_allclose(one.error, other.error, atol=1e-12)


def test_who_answers_with_the_truth_is_perfect() -> None:
    world = world_of(random_boxes(seed=0), samples=6)
    metrics = detection_metrics(world, oracle(world.boxes))
    assert metrics.mean_ap == pytest.approx(1)
    assert metrics.nd_score == pytest.approx(1)
    assert max(metrics.tp_errors.values()) == pytest.approx(0, abs=1e-12)


def test_who_says_nothing_has_nothing() -> None:
    metrics = detection_metrics(world_of(random_boxes(seed=0), samples=6), Detections.concatenate([]))
    assert metrics.mean_ap == metrics.nd_score == 0


def test_the_order_of_detections_with_different_scores_does_not_matter() -> None:
    world = world_of(random_boxes(seed=0), samples=6)
    detections = noisy_detections(world.boxes, seed=1)
    shuffled = detections.select(np.random.default_rng(2).permutation(len(detections)))
    assert 0.05 < detection_metrics(world, detections).mean_ap < 0.95
    assert_same(detection_metrics(world, shuffled), detection_metrics(world, detections))


def test_only_the_order_of_scores_matters_for_average_precision() -> None:
    world = world_of(random_boxes(seed=0), samples=6)
    detections = noisy_detections(world.boxes, seed=1)
    squeezed = replace(detections, score=detections.score**3)
    np.testing.assert_allclose(
        detection_metrics(world, squeezed).ap, detection_metrics(world, detections).ap, atol=1e-12
    )


def test_half_found_and_nothing_invented_is_half_the_average_precision() -> None:
    """Recalls from 0.11 to 0.50 have precision 1, the others none: 40 of 90 samples of the curve."""
    cars = boxes_of(100, center=np.arange(100)[:, None] * [0.4, 0.0, 0.0])
    found = oracle(cars.select(np.arange(0, 100, 2)))
    ap = average_matches(match_all(cars, found)).class_ap[CLASSES.index("car")]
    assert ap == pytest.approx(40 / 90)


@pytest.mark.parametrize(("name", "error"), [("barrier", 0.0), ("car", np.pi), ("pedestrian", np.pi)])
def test_a_heading_off_by_half_a_turn_counts_except_for_barriers(name: str, error: float) -> None:
    there = boxes_of(1, label=CLASSES.index(name))
    reversed_ = replace(there, rotation=np.array([[0.0, 0.0, 0.0, 1.0]]))
    metrics = average_matches(match_all(there, oracle(reversed_)))
    assert metrics.error[CLASSES.index(name), TP_ERRORS.index("orient_err")] == pytest.approx(error)


def test_cones_and_barriers_have_no_velocity_or_attribute_error() -> None:
    error = detection_metrics(world_of(random_boxes(seed=0), samples=6), Detections.concatenate([])).error
    undefined = {(CLASSES[k], TP_ERRORS[e]) for k, e in np.argwhere(np.isnan(error))}
    cone, barrier = ("orient_err", "vel_err", "attr_err"), ("vel_err", "attr_err")
    assert undefined == {("traffic_cone", e) for e in cone} | {("barrier", e) for e in barrier}


def test_an_unknown_velocity_or_attribute_is_no_error() -> None:
    boxes = boxes_of(20, center=np.arange(20)[:, None] * [1.5, 0.0, 0.0])
    half = np.arange(20) % 2 == 0
    unknown = replace(
        boxes,
        velocity=np.where(half[:, None], np.nan, boxes.velocity),
        attribute=np.where(half, -1, boxes.attribute),
    )
    wrong_where_unknown = replace(
        boxes, velocity=boxes.velocity + half[:, None], attribute=np.where(half, 0, boxes.attribute)
    )
    error = average_matches(match_all(unknown, oracle(wrong_where_unknown))).error[CLASSES.index("car")]
    np.testing.assert_array_equal(error, np.zeros(5))


def test_boxes_out_of_range_without_points_or_racked_bikes_are_not_evaluated() -> None:
    bike, cone = CLASSES.index("bicycle"), CLASSES.index("traffic_cone")
    kinds = [
        # label, distance, points, evaluated
        (0, 49.9, 5, True),
        (0, 50.0, 5, False),
        (cone, 30.5, 5, False),
        (0, 5.0, 0, False),
        (0, 5.0, -1, True),
        (bike, 10.0, 5, False),  # on the rack
        (0, 10.0, 5, True),  # a car there is evaluated
        (bike, 12.5, 5, True),  # beside it
    ]
    label, distance, points, expected = map(np.array, zip(*kinds, strict=True))
    boxes = boxes_of(len(kinds), label=label, center=distance[:, None] * [0.0, 1.0, 0.0], num_points=points)
    rack = boxes_of(  # two metres long, turned to lie along y
        1,
        center=np.array([[0.0, 11.0, 0.0]]),
        size=np.array([[2.0, 0.5, 1.0]]),
        rotation=np.array([[1.0, 0.0, 0.0, 1.0]]),
    )
    np.testing.assert_array_equal(is_evaluated(boxes, world_of(boxes, racks=rack)), expected)


def test_a_rack_of_another_sample_hides_no_bike() -> None:
    bikes = boxes_of(2, sample=[0, 1], label=CLASSES.index("bicycle"))
    rack = boxes_of(1, sample=[1], size=[1.0, 1.0, 1.0])
    world = world_of(bikes, samples=2, racks=rack)
    np.testing.assert_array_equal(is_evaluated(bikes, world), [True, False])


def test_the_summary_is_the_same_after_json() -> None:
    world = world_of(random_boxes(seed=0), samples=6)
    summary = metrics_summary(detection_metrics(world, noisy_detections(world.boxes, seed=1)), meta={"use_lidar": True})
    again = json.loads(json.dumps(summary))
    np.testing.assert_equal(again, summary)
    assert list(again) == [
        *("label_aps", "mean_dist_aps", "mean_ap", "label_tp_errors", "tp_errors", "tp_scores", "nd_score"),
        *("eval_time", "cfg", "meta"),
    ]
    assert list(again["label_aps"]["car"]) == ["0.5", "1.0", "2.0", "4.0"]
