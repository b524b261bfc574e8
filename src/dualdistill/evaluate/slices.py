"""Scores of parts of a split: near and far, by night, in rain."""

import json
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from dualdistill.data.index import NuscenesIndex
from dualdistill.evaluate.metrics import average_matches, match_all, match_evaluated
from dualdistill.evaluate.records import Detections, GlobalBoxes, GroundTruth

BANDS = ((0.0, 15.0), (15.0, 30.0), (30.0, np.inf))
"""Distances from the ego vehicle, metres."""
CONDITIONS = ("night", "rain")
"""Words in the description of a scene."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Score of a part of a split."""

    name: str
    objects: int
    classes: int
    """Classes with objects in it."""
    mean_ap: float
    """Mean AP of those classes, in [0, 1]: the benchmark's mean would count the absent ones as 0."""


def slices(index: NuscenesIndex, ground_truth: GroundTruth, detections: Detections) -> list[Slice]:
    """Scores by distance, and by the conditions that scene descriptions name; parts without objects are left out.

    At the border of two bands an object and its detection may lie on different sides, and both count as errors.
    """
    evaluated = match_evaluated(ground_truth, detections)
    objects, found = evaluated.objects, evaluated.detections

    def score(name: str, kept: Bool[np.ndarray, "objects"], of_found: Bool[np.ndarray, "detections"]) -> Slice:
        own = objects.select(kept)
        present = np.unique(own.label)
        metrics = average_matches(match_all(own, found.select(of_found)))
        mean = float(metrics.class_ap[present].mean()) if len(present) else 0.0
        return Slice(name=name, objects=len(own), classes=len(present), mean_ap=mean)

    def distance(boxes: GlobalBoxes) -> np.ndarray:
        return np.linalg.norm(boxes.center[:, :2] - ground_truth.ego_position[boxes.sample, :2], axis=1)

    near, near_found = distance(objects), distance(found)
    parts = []
    for low, high in BANDS:
        name = f"{low:g} to {high:g} m" if np.isfinite(high) else f"beyond {low:g} m"
        parts.append(score(name, (near >= low) & (near < high), (near_found >= low) & (near_found < high)))
    for condition, samples in _conditions(index, ground_truth).items():
        parts.append(score(condition, samples[objects.sample], samples[found.sample]))
    return [part for part in parts if part.objects]


def _conditions(index: NuscenesIndex, ground_truth: GroundTruth) -> dict[str, Bool[np.ndarray, "samples"]]:
    """Samples by condition; "day, dry" are those without any."""
    records = json.loads((index.root / index.version / "scene.json").read_text())
    described = {record["name"]: record.get("description", "").lower() for record in records}
    texts = [described[index.scene_name[scene]] for scene in ground_truth.scene]
    of = {word: np.array([word in text for text in texts]) for word in CONDITIONS}
    plain = ~np.logical_or.reduce(list(of.values()))
    return of | {"neither night nor rain": plain} if any(map(np.any, of.values())) else {}
