"""Which detection finds which object: the greedy matching of the nuScenes benchmark, all samples at once.

The rule: the detections of a class go in order of their score; each looks at the objects of its class in its
sample that are still free, takes the nearest (the first of equally near ones) if it is nearer than the
threshold, and is a false positive otherwise.

Two observations make it a handful of array operations. An object farther away than the largest threshold
changes nothing, so a short list of candidate pairs says everything. And matches in different (sample, class)
groups do not interact: the k-th detections of all groups can choose in the same round, at all thresholds
together.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64

from dualdistill.evaluate.records import GlobalBoxes
from dualdistill.structures import CLASSES


def match(
    objects: GlobalBoxes,
    detections: GlobalBoxes,
    best_first: Int64[np.ndarray, "detections"],
    distances: tuple[float, ...],
) -> Int64[np.ndarray, "threshold detections"]:
    """Row of the object that each detection takes at each threshold; -1 for a false positive.

    Args:
        best_first: Rows of `detections` in the order in which they choose.
        distances: The thresholds, metres in the ground plane.
    """
    thresholds = np.array(distances)
    detection, obj, distance = _candidate_pairs(objects, detections, thresholds.max())
    turn = _turns(detections, best_first, detection)
    # By turn, so that a round is a slice; within it by detection; of one detection, the nearest object first.
    order = np.lexsort((obj, distance, detection, turn))
    detection, obj, turn = detection[order], obj[order], turn[order]
    near = distance[order] < thresholds[:, None]  # threshold pair

    matched = np.full((len(thresholds), len(detections)), -1)
    free = np.ones((len(thresholds), len(objects)), dtype=bool)
    rounds = np.searchsorted(turn, np.arange(turn[-1] + 2)) if len(turn) else np.zeros(0, np.int64)
    for start, stop in pairwise(rounds):
        choice = near[:, start:stop] & free[:, obj[start:stop]]
        threshold, pair = np.nonzero(choice)
        pair += start
        chooser = threshold * len(detections) + detection[pair]
        nearest = np.diff(chooser, prepend=-1) != 0  # the first pair of each detection at each threshold
        threshold, pair = threshold[nearest], pair[nearest]
        matched[threshold, detection[pair]] = obj[pair]
        free[threshold, obj[pair]] = False
    return matched


def _groups(boxes: GlobalBoxes) -> Int64[np.ndarray, "boxes"]:
    """One number for each pair of sample and class."""
    return boxes.sample * len(CLASSES) + boxes.label


def _candidate_pairs(
    objects: GlobalBoxes, detections: GlobalBoxes, reach: float
) -> tuple[Int64[np.ndarray, "pairs"], Int64[np.ndarray, "pairs"], Float64[np.ndarray, "pairs"]]:
    """Detection, object and distance in the ground plane of all pairs of a group nearer than `reach` metres.

    Objects are sorted by group and x, so the ones within reach along x are a slice. Ranks stand for the
    coordinates: group and rank in one integer compare exactly, however large the map.
    """
    x_object, x_detection = objects.center[:, 0], detections.center[:, 0]
    sorted_x = np.sort(x_object)
    stride = len(objects) + 1
    key = _groups(objects) * stride + np.searchsorted(sorted_x, x_object)
    order = np.argsort(key, kind="stable")
    key = key[order]
    margin = reach + 1e-6 + 1e-12 * np.abs(x_detection)  # rounding must not lose a pair; too many do no harm
    first_key = _groups(detections) * stride + np.searchsorted(sorted_x, x_detection - margin, side="left")
    last_key = _groups(detections) * stride + np.searchsorted(sorted_x, x_detection + margin, side="right")
    first, last = np.searchsorted(key, first_key), np.searchsorted(key, last_key)

    count = last - first
    detection = np.repeat(np.arange(len(detections)), count)
    within_slice = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    obj = order[first[detection] + within_slice]
    distance = np.sqrt(((detections.center[detection, :2] - objects.center[obj, :2]) ** 2).sum(axis=1))
    close = distance < reach
    return detection[close], obj[close], distance[close]


def _turns(
    detections: GlobalBoxes, best_first: Int64[np.ndarray, "detections"], chooser: Int64[np.ndarray, "pairs"]
) -> Int64[np.ndarray, "pairs"]:
    """How many detections of the same group that have a choice at all come before that of each pair."""
    has_choice = np.zeros(len(detections), dtype=bool)
    has_choice[chooser] = True
    choosers = best_first[has_choice[best_first]]
    choosers = choosers[np.argsort(_groups(detections)[choosers], kind="stable")]
    group = _groups(detections)[choosers]
    turn_of = np.zeros(len(detections), np.int64)
    turn_of[choosers] = np.arange(len(group)) - np.searchsorted(group, group)
    return turn_of[chooser]
