"""Uncertainty of mAP and NDS over the choice of scenes, by bootstrap.

The samples of a scene show the same objects again and again, so scenes are drawn with replacement. Matching works
within samples and is done once; each replicate only averages with other weights.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from dualdistill.evaluate.metrics import average_matches, match_evaluated
from dualdistill.evaluate.protocol import DETECTION_CVPR_2019, DetectionConfig
from dualdistill.evaluate.records import Detections, GroundTruth


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """Metrics of resampled sets of scenes.

    Two detectors resampled with the same seed have the same sets, so the differences of their replicates are the
    replicates of their difference.
    """

    mean_ap: Float64[np.ndarray, "replicates"]
    nd_score: Float64[np.ndarray, "replicates"]


def bootstrap_scenes(
    ground_truth: GroundTruth,
    detections: Detections,
    *,
    replicates: int = 1000,
    seed: int = 0,
    config: DetectionConfig = DETECTION_CVPR_2019,
) -> Replicates:
    """Metrics of `replicates` draws of as many scenes as there are, with replacement."""
    matches = match_evaluated(ground_truth, detections, config)
    scenes, scene_of_sample = np.unique(ground_truth.scene, return_inverse=True)
    generator = np.random.default_rng(seed)
    mean_ap, nd_score = np.empty(replicates), np.empty(replicates)
    for i in range(replicates):
        drawn = generator.integers(len(scenes), size=len(scenes))
        times = np.bincount(drawn, minlength=len(scenes))[scene_of_sample]
        metrics = average_matches(matches, config, times)
        mean_ap[i], nd_score[i] = metrics.mean_ap, metrics.nd_score
    return Replicates(mean_ap=mean_ap, nd_score=nd_score)


def interval(replicates: Float64[np.ndarray, "replicates"], confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the replicates of one metric, or of a difference of two."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return float(low), float(high)
