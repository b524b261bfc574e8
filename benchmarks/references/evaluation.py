"""nuScenes detection metrics as published, one box after the other: what the array form must agree with.

Source: H. Caesar et al., "nuScenes", CVPR 2020, section 4: sort by score, match greedily per class and threshold,
interpolate 101 recalls, average. The inputs are filtered already.
"""

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from dualdistill.evaluate.protocol import (
    DISTANCES,
    MIN_PRECISION,
    MIN_RECALL,
    TP_ERRORS,
    TP_THRESHOLD,
    UNDEFINED_ERRORS,
)
from dualdistill.evaluate.records import GlobalBoxes
from dualdistill.structures import CLASSES


@dataclass
class Box:
    """One box as an object, as evaluation kits keep them."""

    sample: int
    label: int
    center: list[float]
    size: list[float]
    yaw: float
    velocity: list[float]
    attribute: int
    score: float


def as_objects(boxes: GlobalBoxes, score: np.ndarray | None = None) -> list[Box]:
    scores = np.zeros(len(boxes)) if score is None else score
    columns = (boxes.sample, boxes.label, boxes.center, boxes.size, boxes.yaw, boxes.velocity, boxes.attribute, scores)
    return [Box(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def loop_metrics(objects: list[Box], detections: list[Box]) -> dict[str, np.ndarray]:
    """AP by class and threshold, and true-positive errors by class."""
    by_sample: dict[tuple[int, int], list[tuple[int, Box]]] = defaultdict(list)
    for number, box in enumerate(objects):
        by_sample[box.sample, box.label].append((number, box))
    ap = np.zeros((len(CLASSES), len(DISTANCES)))
    error = np.ones((len(CLASSES), len(TP_ERRORS)))
    first = round(100 * MIN_RECALL) + 1
    for label, name in enumerate(CLASSES):
        there = sum(box.label == label for box in objects)
        own = [box for box in detections if box.label == label]
        order = sorted(range(len(own)), key=lambda i: (own[i].score, i), reverse=True)
        for t, limit in enumerate(DISTANCES):
            hits, errors = _match([own[i] for i in order], by_sample, limit)
            if not errors:
                continue
            recalls = np.linspace(0, 1, 101)
            found = np.cumsum(hits).astype(float)
            scores = np.array([own[i].score for i in order])
            recall = found / there
            precision = np.interp(recalls, recall, found / np.arange(1, len(found) + 1), right=0)
            confidence = np.interp(recalls, recall, scores, right=0)
            ap[label, t] = np.maximum(precision[first:] - MIN_PRECISION, 0).mean() / (1 - MIN_PRECISION)
            reached = np.flatnonzero(confidence)
            if t == TP_THRESHOLD and len(reached) and reached[-1] >= first:
                of_hits = scores[np.array(hits, dtype=bool)]
                for e, column in enumerate(np.array(errors).T):
                    curve = np.interp(confidence[::-1], of_hits[::-1], _running_mean(column)[::-1])[::-1]
                    error[label, e] = curve[first : reached[-1] + 1].mean()
        for undefined in UNDEFINED_ERRORS.get(name, ()):
            error[label, TP_ERRORS.index(undefined)] = math.nan
    return {"ap": ap, "error": error}


def _match(
    best_first: list[Box], by_sample: dict[tuple[int, int], list[tuple[int, Box]]], limit: float
) -> tuple[list[bool], list[list[float]]]:
    """Whether each detection is a hit, and the errors of those that are."""
    taken: set[int] = set()
    hits, errors = [], []
    for box in best_first:
        nearest, chosen = math.inf, None
        for number, candidate in by_sample.get((box.sample, box.label), ()):
            if number not in taken:
                apart = math.hypot(box.center[0] - candidate.center[0], box.center[1] - candidate.center[1])
                if apart < nearest:
                    nearest, chosen = apart, (number, candidate)
        hit = chosen is not None and nearest < limit
        hits.append(hit)
        if hit and chosen is not None:
            taken.add(chosen[0])
            errors.append([nearest, *_other_errors(chosen[1], box)])
    return hits, errors


def _other_errors(there: Box, found: Box) -> list[float]:
    common = math.prod(map(min, there.size, found.size))
    period = math.pi if CLASSES[there.label] == "barrier" else 2 * math.pi
    turned = (there.yaw - found.yaw + period / 2) % period - period / 2
    return [
        1 - common / (math.prod(there.size) + math.prod(found.size) - common),
        abs(turned),
        math.hypot(found.velocity[0] - there.velocity[0], found.velocity[1] - there.velocity[1]),
        math.nan if there.attribute < 0 else float(there.attribute != found.attribute),
    ]


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the known values so far; 1 where none is known."""
    known = ~np.isnan(values)
    if not known.any():
        return np.ones(len(values))
    return np.nancumsum(values) / np.maximum(np.cumsum(known), 1)
