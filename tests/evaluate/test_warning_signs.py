"""Metrics of detections with a known mistake are named as that mistake; those of sound detections are not."""

from dataclasses import replace

import numpy as np
import pytest

from dualdistill.evaluate.metrics import detection_metrics, metrics_summary
from dualdistill.evaluate.records import Detections
from dualdistill.evaluate.scoring import warning_signs
from tests.evaluate.evaluation_worlds import noisy_detections, random_boxes, world_of

WORLD = world_of(random_boxes(0, 400), samples=6)


def signs(detections: Detections) -> list[str]:
    return warning_signs(metrics_summary(detection_metrics(WORLD, detections)))


def turned(detections: Detections, angle: float) -> Detections:
    yaw = detections.yaw + angle
    zero = np.zeros_like(yaw)
    rotation = np.stack([np.cos(yaw / 2), zero, zero, np.sin(yaw / 2)], axis=1)
    return replace(detections, rotation=rotation)


def test_sound_detections_have_none():
    assert signs(noisy_detections(WORLD.boxes, 1)) == []


@pytest.mark.parametrize(("angle", "words"), [(np.pi / 2, "about pi/2"), (np.pi, "backwards")])
def test_a_wrong_yaw_convention_is_named(angle, words):
    (sign,) = signs(turned(noisy_detections(WORLD.boxes, 1), angle))
    assert words in sign


def test_random_orientations_read_like_a_quarter_turn():
    detections = noisy_detections(WORLD.boxes, 1)
    (sign,) = signs(turned(detections, np.random.default_rng(0).uniform(-np.pi, np.pi, len(detections))))
    assert "as good as random" in sign


def test_detections_of_another_place_are_named():
    detections = noisy_detections(WORLD.boxes, 1)
    elsewhere = replace(detections, center=detections.center + 100)
    (sign,) = signs(elsewhere)
    assert "AP is 0" in sign
