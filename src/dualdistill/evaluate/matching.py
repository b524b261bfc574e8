"""The greedy matching of detections and objects of the nuScenes benchmark, for all thresholds at once.

The rule: the detections of a class are processed by falling score. Each is matched to the nearest object of its class
and sample that is still free (the first of equally near ones), if that is nearer than the threshold; otherwise it is a
false positive.

Three observations turn this into array operations of modest size. Samples and classes do not interact, so a class is
processed in pieces of a few thousand detections, which fit the processor's cache. Objects beyond the largest threshold
are irrelevant, so short lists of candidates suffice. And the greedy result is the only stable matching, because all
objects prefer the higher score: it can be found by deferred acceptance in any order (Gale and Shapley 1962). Every
detection proposes to the nearest object of its list, an object keeps its best proposal, and rejected detections
propose to the next one. A few rounds suffice, where the sequential rule needs one step per detection.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int, Int64

from dualdistill.evaluate.records import GlobalBoxes
from dualdistill.structures import CLASSES

PIECE = 8192
"""Detections processed at once; all detections of one sample stay together, even if they are more."""

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
    samples = 1 + max(int(objects.sample.max(initial=-1)), int(detections.sample.max(initial=-1)))
    object_rows = np.lexsort((objects.sample, objects.label))
    ends_object = np.cumsum(np.bincount(objects.label, minlength=len(CLASSES)))
    ends_turn = np.cumsum(np.bincount(detections.label, minlength=len(CLASSES)))
    found = [np.zeros((3, 0), np.int64)]
    for k, (end_object, end_turn) in enumerate(zip(ends_object, ends_turn, strict=True)):
        own_objects = object_rows[ends_object[k - 1] if k else 0 : end_object]
        start = ends_turn[k - 1] if k else 0
        hits = _match_class(objects, detections, own_objects, turns[start:end_turn], samples, np.array(distances))
        hits[1] += start
        found.append(hits)
    threshold, turn, obj = np.concatenate(found, axis=1)
    order = np.argsort(threshold * len(turns) + turn)
    return Hits(threshold=threshold[order], turn=turn[order], obj=obj[order])


def _match_class(
    objects: GlobalBoxes,
    detections: GlobalBoxes,
    object_rows: Int64[np.ndarray, "own_objects"],
    turns: Int64[np.ndarray, "turns"],
    samples: int,
    distances: Float64[np.ndarray, "threshold"],
) -> Int64[np.ndarray, "3 hits"]:
    """Threshold, position in `turns` and row of the object of the hits of one class, its objects sorted by sample."""
    count = np.bincount(objects.sample[object_rows], minlength=samples)
    first = np.cumsum(count) - count
    x_object, y_object = objects.center[object_rows, 0], objects.center[object_rows, 1]

    # Turns by sample; those without candidates are left out. Small integers are sorted in linear time.
    sample = detections.sample[turns]
    turn = np.argsort(sample.astype(np.min_scalar_type(samples)), kind="stable")
    turn = turn[count[sample[turn]] > 0]
    sample, rows = sample[turn], turns[turn]
    x, y = detections.center[rows, 0], detections.center[rows, 1]

    ends = np.concatenate([[0], np.cumsum(np.bincount(sample, minlength=samples))])
    cuts = np.unique(np.searchsorted(ends, np.arange(0, len(turn) + PIECE, PIECE)).clip(max=samples))
    found = [np.zeros((3, 0), np.int64)]
    for start, stop in pairwise(cuts):
        a, b = ends[start], ends[stop]
        if a == b:
            continue
        detection, nearby, distance = _candidates(
            (x_object, y_object), first[start:stop], count[start:stop], (x[a:b], y[a:b]), sample[a:b] - start, distances
        )
        threshold, pair = _choose(detection, nearby - first[start], distance, int(count[start:stop].sum()), distances)
        found.append(np.stack([threshold, turn[a + detection[pair]], object_rows[nearby[pair]]]))
    return np.concatenate(found, axis=1)


def _candidates(
    xy_object: tuple[Float64[np.ndarray, "objects"], Float64[np.ndarray, "objects"]],
    first: Int[np.ndarray, "samples"],
    count: Int[np.ndarray, "samples"],
    xy: tuple[Float64[np.ndarray, "detections"], Float64[np.ndarray, "detections"]],
    sample: Int64[np.ndarray, "detections"],
    distances: Float64[np.ndarray, "threshold"],
) -> tuple[Int64[np.ndarray, "pairs"], Int64[np.ndarray, "pairs"], Float64[np.ndarray, "pairs"]]:
    """Detection, object and distance of all pairs within reach, by detection, then distance, then object. `xy_object`:
    coordinates of all objects of the class, metres; those of each sample are `count` from `first` on."""
    widest = int(count.max())
    table = first[:, None] + np.arange(widest)  # samples, objects of each: short rows are padded
    padding = np.arange(widest) >= count[:, None]
    table[padding] = 0
    x_table, y_table = xy_object[0][table], xy_object[1][table]
    x_table[padding] = np.inf
    square = x_table[sample]
    square -= xy[0][:, None]
    square *= square
    aside = y_table[sample]
    aside -= xy[1][:, None]
    aside *= aside
    square += aside
    distance = square.ravel()
    near = np.flatnonzero(distance < (distances.max() * (1 + 1e-12)) ** 2)  # rounding must not lose a pair
    distance = np.sqrt(distance[near])
    detection = near // widest
    obj = table[sample[detection], near - detection * widest]
    order = np.lexsort((distance, detection.astype(np.min_scalar_type(len(sample)))))
    return detection[order], obj[order], distance[order]


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
