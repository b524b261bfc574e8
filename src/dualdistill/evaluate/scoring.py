"""Metrics of a result file, ours or the devkit's, written to `metrics.json`; what they warn of; scores of slices."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import official_splits
from dualdistill.errors import UserError
from dualdistill.evaluate.ground_truth import ground_truth_of_samples, ground_truth_of_split
from dualdistill.evaluate.metrics import average_matches, detection_metrics, match_all, match_evaluated, metrics_summary
from dualdistill.evaluate.records import Detections, GlobalBoxes, GroundTruth
from dualdistill.evaluate.submission import read_submission
from dualdistill.files import write_json


def read_results(
    path: Path, index: NuscenesIndex, split: str, samples: Int[np.ndarray, "samples"] | None = None
) -> tuple[GroundTruth, Detections, dict[str, Any]]:
    """Annotations, detections and meta entry of a result file for a split, or for some `samples` of it.

    As in the devkit, a file for an official split must hold exactly its samples; for other splits, and for some samples
    alone, it may hold more. Raises UserError for a file, or a split, that cannot be evaluated.
    """
    ground_truth = ground_truth_of_split(index, split) if samples is None else ground_truth_of_samples(index, samples)
    submission = read_submission(path)
    exactly = samples is None and split in official_splits()
    detections = submission.for_samples(ground_truth.sample_tokens, others="refuse" if exactly else "ignore")
    return ground_truth, detections, submission.meta


def evaluate_submission(
    path: Path, index: NuscenesIndex, split: str, out_dir: Path, samples: Int[np.ndarray, "samples"] | None = None
) -> dict[str, Any]:
    """Evaluate a result file; write `out_dir/metrics.json`, keys as in the devkit's `metrics_summary.json`.

    Arguments and errors as in `read_results`.
    """
    ground_truth, detections, meta = read_results(path, index, split, samples)
    start = time.perf_counter()
    metrics = detection_metrics(ground_truth, detections)
    summary = metrics_summary(metrics, eval_time=time.perf_counter() - start, meta=meta)
    # Undefined errors are written as NaN: this is not JSON, but the devkit writes and reads it.
    write_json(out_dir / "metrics.json", summary)
    return summary


def official_metrics(path: Path, root: Path, version: str, split: str, out_dir: Path) -> dict[str, Any]:
    """Evaluate a result file with nuscenes-devkit (numpy < 2): writes its files and `metrics.json` to `out_dir`. Raises
    UserError if the devkit is not installed, or rejects the file."""
    try:
        from nuscenes import NuScenes  # type: ignore[import-not-found]
        from nuscenes.eval.common.config import config_factory  # type: ignore[import-not-found]
        from nuscenes.eval.detection.evaluate import DetectionEval  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError(
            f"the official evaluation needs nuscenes-devkit 1.2.0, which cannot be imported here ({error}):"
            f" install it in an environment with numpy < 2, or evaluate without it (the numbers are the same)"
        ) from error
    dataset = NuScenes(version=version, dataroot=str(root), verbose=False)
    config = config_factory("detection_cvpr_2019")
    try:
        evaluation = DetectionEval(
            dataset, config=config, result_path=str(path), eval_set=split, output_dir=str(out_dir), verbose=False
        )
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(f"nuscenes-devkit rejects {path}: {error}") from error
    summary = evaluation.main(render_curves=False)
    write_json(out_dir / "metrics.json", summary)
    return summary


_NO_ORIENTATION = 0.15
"""Largest distance of mAOE from pi / 2, radians, that counts as "about"."""
_BACKWARDS = 2.4
"""mAOE above this, radians: most boxes point backwards (barriers, which have no front, lower the mean)."""


def warning_signs(metrics: Mapping[str, Any]) -> list[str]:
    """One sentence for each known mistake that the metrics of an evaluation point to, with what to check. `metrics`:
    keys of the devkit's `metrics_summary.json`."""
    if metrics["mean_ap"] == 0:
        return [
            "AP is 0 for every class. Check the weights (untrained, or of another recipe), and that the results "
            "belong to this data root and split."
        ]
    orientation = metrics["tp_errors"]["orient_err"]
    if abs(orientation - math.pi / 2) < _NO_ORIENTATION:
        return [
            f"mAOE is {orientation:.2f}, about pi/2: orientations are as good as random, or off by a quarter turn. "
            "After a short training the first is usual; otherwise check the yaw convention of the boxes (weights of "
            "mmdet3d before 1.0 need `dualdistill convert --boxes legacy`)."
        ]
    if orientation > _BACKWARDS:
        return [
            f"mAOE is {orientation:.2f}, close to pi: boxes point backwards. Check the yaw convention of the boxes "
            "(the x axis of a box is its length and points forwards)."
        ]
    return []


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
