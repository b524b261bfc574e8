"""The nuScenes detection metrics on arrays: AP, true-positive errors, NDS.

Equal to nuscenes-devkit 1.2.0 (`tests/parity/test_nuscenes_eval.py`), ties and empty classes included. The
work is done in two steps: `match_evaluated` matches detections and objects, and `average_matches` averages.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from dualdistill.evaluate.ground_truth import is_evaluated
from dualdistill.evaluate.matching import Hits, match
from dualdistill.evaluate.protocol import (
    CLASS_RANGE,
    DISTANCES,
    MAX_BOXES,
    MEAN_AP_WEIGHT,
    MIN_PRECISION,
    MIN_RECALL,
    TP_ERRORS,
    TP_THRESHOLD,
    UNDEFINED_ERRORS,
)
from dualdistill.evaluate.records import Detections, GlobalBoxes, GroundTruth
from dualdistill.structures import CLASSES

RECALLS = np.linspace(0, 1, 101)
"""Recalls at which curves are sampled: the `recall` axis."""
_FIRST_RECALL = round((len(RECALLS) - 1) * MIN_RECALL) + 1
"""Index of the first recall that counts."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Precision, confidence and errors over recall, sampled at `RECALLS`."""

    precision: Float64[np.ndarray, "klass threshold recall"]
    """Zero past the highest recall."""
    confidence: Float64[np.ndarray, "klass threshold recall"]
    """The score at which each recall is reached; zero past the highest one."""
    error: Float64[np.ndarray, "klass threshold recall error"]
    """Mean over the true positives so far; errors in the order of `TP_ERRORS`."""


@dataclass(frozen=True, kw_only=True)
class DetectionMetrics:
    """Results of the benchmark; classes in the order of `structures.CLASSES`."""

    ap: Float64[np.ndarray, "klass threshold"]
    """Average precision at each of `DISTANCES`."""
    error: Float64[np.ndarray, "klass error"]
    """True-positive errors in the order of `TP_ERRORS`; NaN where undefined for the class."""
    curves: Curves

    @property
    def class_ap(self) -> Float64[np.ndarray, "klass"]:
        return self.ap.mean(axis=1)

    @property
    def mean_ap(self) -> float:
        return float(self.class_ap.mean())

    @property
    def tp_errors(self) -> dict[str, float]:
        """mATE, mASE, mAOE, mAVE, mAAE."""
        return dict(zip(TP_ERRORS, np.nanmean(self.error, axis=0).tolist(), strict=True))

    @property
    def tp_scores(self) -> dict[str, float]:
        return {name: max(0.0, 1.0 - error) for name, error in self.tp_errors.items()}

    @property
    def nd_score(self) -> float:
        """The nuScenes detection score."""
        return (MEAN_AP_WEIGHT * self.mean_ap + sum(self.tp_scores.values())) / (MEAN_AP_WEIGHT + len(TP_ERRORS))


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Matched detections and objects with their errors, on which all metrics depend."""

    objects: GlobalBoxes
    detections: Detections
    turns: Int64[np.ndarray, "detections"]
    """Rows of the detections, class after class, those of one class by falling score."""
    hits: Hits
    """The true positives at each of the distance thresholds."""
    error: Float64[np.ndarray, "hits error"]
    """Errors of each hit, in the order of `TP_ERRORS`; NaN where the annotation lacks the value."""


def detection_metrics(ground_truth: GroundTruth, detections: Detections) -> DetectionMetrics:
    """Metrics of all detections of the samples of `ground_truth`, after the filters of the benchmark."""
    return average_matches(match_evaluated(ground_truth, detections))


def match_evaluated(ground_truth: GroundTruth, detections: Detections) -> Matches:
    """Matches between the boxes that the benchmark evaluates."""
    return match_all(
        ground_truth.boxes.select(is_evaluated(ground_truth.boxes, ground_truth)),
        detections.select(is_evaluated(detections, ground_truth)),
    )


def match_all(objects: GlobalBoxes, detections: Detections) -> Matches:
    """Matches between all boxes, without any filter."""
    turns = best_first(detections)
    hits = match(objects, detections, turns, DISTANCES)
    # Most pairs are hits at several thresholds: their errors are computed once.
    pairs, pair_of_hit = np.unique(hits.turn * max(len(objects), 1) + hits.obj, return_inverse=True)
    turn, obj = np.divmod(pairs, max(len(objects), 1))
    error = _errors(objects.select(obj), detections.select(turns[turn]))
    return Matches(objects=objects, detections=detections, turns=turns, hits=hits, error=error[pair_of_hit])


def best_first(detections: Detections) -> Int64[np.ndarray, "detections"]:
    """Rows class after class, those of one class by falling score; of equal scores the later row, as in the devkit."""
    last_first = (len(CLASSES) - 1 - detections.label).astype(np.uint8)  # sorted in linear time
    return np.lexsort((detections.score, last_first))[::-1]


def average_matches(matches: Matches) -> DetectionMetrics:
    rows, hits, error = matches.turns, matches.hits, matches.error
    num_objects = np.bincount(matches.objects.label, minlength=len(CLASSES)).astype(float)
    num_detections = np.bincount(matches.detections.label, minlength=len(CLASSES))
    ends = np.cumsum(num_detections)

    shape = (len(CLASSES), len(DISTANCES), len(RECALLS))
    curves = Curves(precision=np.zeros(shape), confidence=np.zeros(shape), error=np.ones((*shape, len(TP_ERRORS))))
    order = hits.threshold * len(rows) + hits.turn  # ascending
    for k, (start, end) in enumerate(zip(ends - num_detections, ends, strict=True)):
        score = matches.detections.score[rows[start:end]]
        for t in range(len(DISTANCES)):
            own = slice(*np.searchsorted(order, [t * len(rows) + start, t * len(rows) + end]))
            hit = hits.turn[own] - start
            if not len(hit):
                continue  # nothing found, or nothing there
            precision, confidence = _precision_and_confidence(hit, score, num_objects[k])
            curves.precision[k, t], curves.confidence[k, t] = precision, confidence
            curves.error[k, t] = _mean_errors(confidence, score[hit], error[own])
    counted = np.maximum(curves.precision[:, :, _FIRST_RECALL:] - MIN_PRECISION, 0)
    ap = counted.mean(axis=2) / (1 - MIN_PRECISION)
    return DetectionMetrics(ap=ap, error=_average_errors(curves), curves=curves)


def _errors(objects: GlobalBoxes, detections: GlobalBoxes) -> Float64[np.ndarray, "pairs error"]:
    """The errors of `TP_ERRORS` of each object and the detection in the same row."""
    translation = np.linalg.norm(detections.center[:, :2] - objects.center[:, :2], axis=1)
    common = np.minimum(objects.size, detections.size).prod(axis=1)
    scale = 1 - common / (objects.size.prod(axis=1) + detections.size.prod(axis=1) - common)
    # A barrier has no front: its heading is known up to half a turn.
    period = np.where(objects.label == CLASSES.index("barrier"), np.pi, 2 * np.pi)
    orientation = np.abs((objects.yaw - detections.yaw + period / 2) % period - period / 2)
    velocity = np.linalg.norm(detections.velocity - objects.velocity, axis=1)
    attribute = np.where(objects.attribute < 0, np.nan, objects.attribute != detections.attribute)
    return np.stack([translation, scale, orientation, velocity, attribute], axis=1)


def _precision_and_confidence(
    hit: Int64[np.ndarray, "hits"], score: Float64[np.ndarray, "detections"], num_objects: float
) -> tuple[Float64[np.ndarray, "recall"], Float64[np.ndarray, "recall"]]:
    """Precision and score at `RECALLS`, from the scores of one class, best first, and which of them are hits.

    Recall rises at hits alone: between two, interpolation starts from the last detection before the second.
    """
    place = np.append(np.stack([hit - 1, hit], axis=1), len(score) - 1)
    found = np.append(np.repeat(np.arange(len(hit) + 1.0), 2)[1:-1], len(hit))
    if place[0] < 0:
        place, found = place[1:], found[1:]
    recall, precision = found / num_objects, found / (place + 1)
    return np.interp(RECALLS, recall, precision, right=0), np.interp(RECALLS, recall, score[place], right=0)


def _mean_errors(
    confidence: Float64[np.ndarray, "recall"],
    score: Float64[np.ndarray, "hits"],
    error: Float64[np.ndarray, "hits error"],
) -> Float64[np.ndarray, "recall error"]:
    """Mean error of the true positives down to each confidence.

    Unknown errors do not count; an error that is never known is 1.
    """
    known = ~np.isnan(error)
    count = known.cumsum(axis=0)
    mean = np.nancumsum(error, axis=0) / np.maximum(count, 1)  # zero before the first known one, as in the devkit
    mean[:, ~known.any(axis=0)] = 1.0
    # np.interp needs ascending positions.
    curves = [np.interp(confidence[::-1], score[::-1], column[::-1])[::-1] for column in mean.T]
    return np.stack(curves, axis=1)


def _average_errors(curves: Curves) -> Float64[np.ndarray, "klass error"]:
    """Mean error from the first recall that counts to the highest one reached; 1 if none that counts is."""
    result = np.ones((len(CLASSES), len(TP_ERRORS)))
    for k, name in enumerate(CLASSES):
        reached = np.flatnonzero(curves.confidence[k, TP_THRESHOLD])
        if len(reached) and reached[-1] >= _FIRST_RECALL:
            result[k] = curves.error[k, TP_THRESHOLD, _FIRST_RECALL : reached[-1] + 1].mean(axis=0)
        for error in UNDEFINED_ERRORS.get(name, ()):
            result[k, TP_ERRORS.index(error)] = np.nan
    return result


def metrics_summary(
    metrics: DetectionMetrics, *, eval_time: float = 0.0, meta: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The content of the devkit's `metrics_summary.json`; undefined errors are NaN, as there. `eval_time` is in
    seconds, `meta` that of the evaluated submission."""
    at = {name: CLASSES.index(name) for name in CLASS_RANGE}
    ap, error = metrics.ap.tolist(), metrics.error.tolist()
    distances = [str(float(distance)) for distance in DISTANCES]
    return {
        "label_aps": {name: dict(zip(distances, ap[k], strict=True)) for name, k in at.items()},
        "mean_dist_aps": {name: float(metrics.class_ap[k]) for name, k in at.items()},
        "mean_ap": metrics.mean_ap,
        "label_tp_errors": {name: dict(zip(TP_ERRORS, error[k], strict=True)) for name, k in at.items()},
        "tp_errors": metrics.tp_errors,
        "tp_scores": metrics.tp_scores,
        "nd_score": metrics.nd_score,
        "eval_time": eval_time,
        "cfg": {
            "class_range": dict(CLASS_RANGE),
            "dist_fcn": "center_distance",
            "dist_ths": list(DISTANCES),
            "dist_th_tp": DISTANCES[TP_THRESHOLD],
            "min_recall": MIN_RECALL,
            "min_precision": MIN_PRECISION,
            "max_boxes_per_sample": MAX_BOXES,
            "mean_ap_weight": MEAN_AP_WEIGHT,
        },
        "meta": dict(meta or {}),
    }


def balanced_score(ground_truth: GroundTruth, detections: Detections) -> float:
    """The lowest shown score with the best F1 of all classes together, matched at the distance of the TP errors (2 m).

    Lower ones add more false boxes than found objects. 1 where nothing is found.
    """
    matches = match_evaluated(ground_truth, detections)
    found = matches.hits.turn[matches.hits.threshold == TP_THRESHOLD]
    if not len(found):
        return 1.0
    scores = matches.detections.score[matches.turns]
    hit = np.isin(np.arange(len(scores)), found)
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * np.cumsum(hit[order]) / (np.arange(1, len(scores) + 1) + len(matches.objects))
    return float(scores[order][f1.argmax()])
