"""The bootstrap over scenes resamples matches as if samples were really repeated."""

from dataclasses import replace

import numpy as np
import pytest

from dualdistill.evaluate.bootstrap import gain_over_scenes, repeated
from dualdistill.evaluate.metrics import average_matches, match_all
from dualdistill.evaluate.records import GlobalBoxes
from tests.evaluate.evaluation_worlds import noisy_detections, random_boxes, world_of


def really_repeated(boxes: GlobalBoxes, times: np.ndarray) -> GlobalBoxes:
    """The boxes of each sample so often, every copy as a sample of its own."""
    rows, sample = [], []
    for copy in range(times.max()):
        own = np.flatnonzero(times[boxes.sample] > copy)
        rows.append(own)
        sample.append(boxes.sample[own] + copy * len(times))
    return replace(boxes.select(np.concatenate(rows)), sample=np.concatenate(sample))


def test_repeating_matches_is_matching_repeated_samples():
    truth = random_boxes(seed=0)
    found = noisy_detections(truth, seed=1)
    times = np.array([2, 0, 1, 3, 0, 1])
    quick = average_matches(repeated(match_all(truth, found), times))
    slow = average_matches(match_all(really_repeated(truth, times), really_repeated(found, times)))
    np.testing.assert_allclose(quick.ap, slow.ap, atol=1e-12)
    np.testing.assert_allclose(quick.error, slow.error, atol=1e-12)


def test_a_detector_gains_nothing_over_itself_on_any_draw():
    world = world_of(random_boxes(seed=0), samples=6, scenes=3)
    found = noisy_detections(world.boxes, seed=1)
    gain = gain_over_scenes(world, found, found, resamples=20)
    assert gain.mean_ap_interval == gain.nd_score_interval == (0.0, 0.0)
    assert gain.scenes == 3


def test_the_interval_of_a_clearly_better_detector_lies_above_zero_and_holds_the_gain():
    world = world_of(random_boxes(seed=0, count=600, samples=12), samples=12, scenes=6)
    good = noisy_detections(world.boxes, seed=1)
    worse = good.select(np.arange(len(good)) % 2 == 0)
    gain = gain_over_scenes(world, good, worse, resamples=50)
    low, high = gain.mean_ap_interval
    assert 0 < low < gain.mean_ap < high
    back = gain_over_scenes(world, worse, good, resamples=50)
    assert back.mean_ap_interval == pytest.approx((-high, -low))
