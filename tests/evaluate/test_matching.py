"""The greedy matching, held against its own definition."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dualdistill.evaluate.matching import match
from dualdistill.evaluate.records import GlobalBoxes
from tests.evaluate.evaluation_worlds import boxes_of, random_boxes

DISTANCES = (0.5, 1.0, 2.0, 4.0)


def match_with_loops(objects: GlobalBoxes, detections: GlobalBoxes, distance: float) -> list[int]:
    """The definition: one detection after the other, all free objects of its class and sample looked at."""
    matched, taken = [], set()
    for d in range(len(detections)):
        nearest, nearest_distance = -1, np.inf
        for o in range(len(objects)):
            same = objects.sample[o] == detections.sample[d] and objects.label[o] == detections.label[d]
            if same and o not in taken:
                apart = np.linalg.norm(detections.center[d, :2] - objects.center[o, :2])
                if apart < nearest_distance:
                    nearest, nearest_distance = o, apart
        hit = nearest_distance < distance
        matched.append(nearest if hit else -1)
        taken |= {nearest} if hit else set()
    return matched


def matched_by_row(
    objects: GlobalBoxes,
    detections: GlobalBoxes,
    best_first: np.ndarray,
    distances: tuple[float, ...] = DISTANCES,
) -> np.ndarray:
    """The object of each row of `detections` at each threshold, -1 for a false positive."""
    turns = best_first[np.argsort(detections.label[best_first], kind="stable")]
    hits = match(objects, detections, turns, distances)
    assert (np.diff(hits.threshold * len(turns) + hits.turn) > 0).all()  # in the promised order, nobody twice
    matched = np.full((len(distances), len(turns)), -1)
    matched[hits.threshold, turns[hits.turn]] = hits.obj
    return matched


def match_in_order(
    objects: GlobalBoxes, detections: GlobalBoxes, distances: tuple[float, ...] = DISTANCES
) -> np.ndarray:
    return matched_by_row(objects, detections, np.arange(len(detections)), distances)


def crowd(random: np.random.Generator, count: int) -> GlobalBoxes:
    """Boxes on a coarse lattice far from the origin: many are equally near, or just at a limit."""
    lattice = random.integers(-6, 7, (count, 3)) * 0.5
    return boxes_of(
        count,
        sample=random.integers(2, size=count),
        label=random.integers(2, size=count),
        center=lattice + np.array([1000.0, -500.0, 0.0]),
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_objects=st.integers(0, 40), num_detections=st.integers(0, 60))
def test_matching_is_what_the_slow_loop_says(seed: int, num_objects: int, num_detections: int) -> None:
    random = np.random.default_rng(seed)
    objects, detections = crowd(random, num_objects), crowd(random, num_detections)
    slow = [match_with_loops(objects, detections, distance) for distance in DISTANCES]
    assert match_in_order(objects, detections).tolist() == slow


def test_who_is_better_chooses_first_wherever_it_stands() -> None:
    """The same as to sort the detections beforehand."""
    random = np.random.default_rng(0)
    objects, detections, best_first = crowd(random, 40), crowd(random, 60), random.permutation(60)
    matched = matched_by_row(objects, detections, best_first)
    assert (matched[:, best_first] == match_in_order(objects, detections.select(best_first))).all()


def test_of_two_equally_near_objects_the_first_is_taken() -> None:
    objects = boxes_of(2, center=[[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    assert match_in_order(objects, boxes_of(2), (2.0,)).tolist() == [[0, 1]]


def test_an_object_exactly_at_the_threshold_is_not_found() -> None:
    assert match_in_order(boxes_of(1, center=[0.0, 2.0, 0.0]), boxes_of(1), (2.0, 4.0)).tolist() == [
        [-1],
        [0],
    ]


def test_height_does_not_matter() -> None:
    assert match_in_order(boxes_of(1, center=[0.0, 0.0, 50.0]), boxes_of(1), (0.5,)).tolist() == [[0]]


def test_every_object_finds_itself() -> None:
    boxes = random_boxes(seed=0)
    assert (match_in_order(boxes, boxes) == np.arange(len(boxes))).all()
