"""Metrics of detections or of a result file, written to `metrics.json`."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import official_splits
from dualdistill.evaluate.ground_truth import ground_truth_of_samples, ground_truth_of_split
from dualdistill.evaluate.metrics import detection_metrics, metrics_summary
from dualdistill.evaluate.records import Detections, GroundTruth
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
    return evaluate_detections(detections, ground_truth, out_dir, meta=meta)


def evaluate_detections(
    detections: Detections, ground_truth: GroundTruth, out_dir: Path, *, meta: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Evaluate detections and write `out_dir/metrics.json`.

    Args:
        detections: `sample` counts in `ground_truth.sample_tokens`.
        meta: The meta entry of the file: the modalities of the detector (`use_camera` and so on).
    """
    start = time.perf_counter()
    metrics = detection_metrics(ground_truth, detections)
    summary = metrics_summary(metrics, eval_time=time.perf_counter() - start, meta=meta)
    # Undefined errors are written as NaN: this is not JSON, but the devkit writes and reads it.
    write_json(out_dir / "metrics.json", summary)
    return summary
