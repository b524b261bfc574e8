"""The greedy matching of detections and objects of the nuScenes benchmark, for all thresholds at once.

The rule: the detections of a class are processed by falling score. Each is matched to the nearest object of its class
and sample that is still free (the first of equally near ones), if that is nearer than the threshold; otherwise it is a
false positive.

Two observations turn this into array operations. Only pairs of one sample and class within the largest threshold
matter, so short lists of candidates suffice. And the greedy result is the only stable matching, because all objects
prefer the higher score: it can be found by deferred acceptance in any order (Gale and Shapley 1962). Every detection
proposes to the nearest object of its list, an object keeps its best proposal, and rejected detections propose to the
next one. A few rounds suffice, where the sequential rule needs one step per detection.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from dualdistill.evaluate.records import GlobalBoxes, spans

PIECE = 8192
"""Detections whose pairs are listed at once: these fit the processor's cache."""

_FREE = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class Hits:
    """True positives, by threshold, then turn."""

    threshold: Int64[np.ndarray, "hits"]
    """Index into the distances given."""
    turn: Int64[np.ndarray, "hits"]
    """Position of the detection among the turns."""
    obj: Int64[np.ndarray, "hits"]
    """Row of the matched object."""


def match(
    objects: GlobalBoxes, detections: GlobalBoxes, turns: Int64[np.ndarray, "detections"], distances: tuple[float, ...]
) -> Hits:
    """The true positives at each threshold; all other detections are false positives.

    Args:
        turns: Rows of `detections`, class after class, those of one class in the order of the matching.
        distances: The thresholds, metres in the ground plane.
    """
    detection, obj, distance = _candidates(objects, detections, turns, max(distances))
    threshold, pair = _choose(detection, obj, distance, len(objects), np.array(distances))
    order = np.argsort(threshold * len(turns) + detection[pair])
    return Hits(threshold=threshold[order], turn=detection[pair][order], obj=obj[pair][order])


def _candidates(
    objects: GlobalBoxes, detections: GlobalBoxes, turns: Int64[np.ndarray, "detections"], reach: float
) -> tuple[Int64[np.ndarray, "pairs"], Int64[np.ndarray, "pairs"], Float64[np.ndarray, "pairs"]]:
    """Turn, row of the object and distance of all pairs of one sample and class within reach (metres), by turn, then
    distance, then object."""
    classes = 1 + max(objects.label.max(initial=0), detections.label.max(initial=0))
    groups = classes * (1 + max(objects.sample.max(initial=0), detections.sample.max(initial=0)))
    own, wanted = (boxes.sample * classes + boxes.label for boxes in (objects, detections))
    rows, count = np.argsort(own, kind="stable"), np.bincount(own, minlength=groups)
    first, wanted = np.cumsum(count) - count, wanted[turns]
    (x, y), (x_object, y_object) = detections.center[turns, :2].T.copy(), objects.center[rows, :2].T.copy()
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for start in range(0, len(turns), PIECE):
        group = wanted[start : start + PIECE]
        turn, obj = spans(first[group], count[group])
        turn += start
        square = (x[turn] - x_object[obj]) ** 2 + (y[turn] - y_object[obj]) ** 2
        near = np.flatnonzero(square < (reach * (1 + 1e-12)) ** 2)  # rounding must not lose a pair
        turn, distance = turn[near], np.sqrt(square[near])
        order = np.lexsort((distance, turn))
        found.append((turn[order], rows[obj[near[order]]], distance[order]))
    turn, obj, distance = (np.concatenate(column) for column in zip(*found, strict=True))
    return turn, obj, distance


def _choose(
    detection: Int64[np.ndarray, "pairs"],
    obj: Int64[np.ndarray, "pairs"],
    distance: Float64[np.ndarray, "pairs"],
    num_objects: int,
    distances: Float64[np.ndarray, "threshold"],
) -> tuple[Int64[np.ndarray, "hits"], Int64[np.ndarray, "hits"]]:
    """Threshold and pair of each hit, by deferred acceptance. `detection` ascends (an object prefers the lower one),
    and `distance` within one detection."""
    begins = np.diff(detection, prepend=-1) != 0
    ends_list = np.append(begins[1:], True)
    lists = np.flatnonzero(begins)
    asking = [lists[distance[lists] < limit] for limit in distances]
    pair = np.concatenate(asking)
    threshold = np.repeat(np.arange(len(distances)), [len(pairs) for pairs in asking])
    held = np.full(len(distances) * num_objects, _FREE)  # the accepted pair of each object, at each threshold
    while len(pair):
        place = threshold * num_objects + obj[pair]
        before = held[place]
        np.minimum.at(held, place, pair)
        refused = held[place] != pair
        displaced = ~refused & (before != _FREE)
        pair = np.concatenate([pair[refused], before[displaced]])
        threshold = np.concatenate([threshold[refused], threshold[displaced]])
        going_on = ~ends_list[pair]
        pair, threshold = pair[going_on] + 1, threshold[going_on]
        going_on = distance[pair] < distances[threshold]
        pair, threshold = pair[going_on], threshold[going_on]
    taken = np.flatnonzero(held != _FREE)
    return taken // max(num_objects, 1), held[taken]
