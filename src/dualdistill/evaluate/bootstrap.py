"""Intervals over scenes: whether another draw of validation scenes would change which of two detectors is better."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64

from dualdistill.evaluate.matching import Hits
from dualdistill.evaluate.metrics import Matches, average_matches, match_evaluated
from dualdistill.evaluate.records import Detections, GroundTruth, spans

RESAMPLES = 400


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What one detector scores above another on the same scenes, in [-1, 1], with 95 % intervals."""

    mean_ap: float
    mean_ap_interval: tuple[float, float]
    nd_score: float
    nd_score_interval: tuple[float, float]
    scenes: int


def gain_over_scenes(
    ground_truth: GroundTruth, detections: Detections, reference: Detections, *, resamples: int = RESAMPLES
) -> Gain:
    """Gain of `detections` over `reference`, with percentile intervals of a paired bootstrap over scenes.

    Samples of one scene are not independent, so whole scenes are drawn, with replacement and for both detectors alike.
    The interval is that of two given networks on other scenes; another seed of their training is not part of it.
    """
    pair = [match_evaluated(ground_truth, each) for each in (detections, reference)]
    _, scene = np.unique(ground_truth.scene, return_inverse=True)
    scenes = int(scene.max()) + 1
    rng = np.random.default_rng(0)
    draws = [np.bincount(rng.integers(scenes, size=scenes), minlength=scenes)[scene] for _ in range(resamples)]
    gains = np.array([_gain(pair, times) for times in (np.ones_like(scene), *draws)])
    low, high = np.quantile(gains[1:], [0.025, 0.975], axis=0)
    return Gain(
        mean_ap=float(gains[0, 0]),
        mean_ap_interval=(float(low[0]), float(high[0])),
        nd_score=float(gains[0, 1]),
        nd_score_interval=(float(low[1]), float(high[1])),
        scenes=scenes,
    )


def _gain(pair: list[Matches], times: Int64[np.ndarray, "samples"]) -> tuple[float, float]:
    ours, theirs = (average_matches(repeated(matches, times)) for matches in pair)
    return ours.mean_ap - theirs.mean_ap, ours.nd_score - theirs.nd_score


def repeated(matches: Matches, times: Int64[np.ndarray, "samples"]) -> Matches:
    """The matches of a set in which each sample occurs so many times; objects and detections of one sample alone meet,
    so nothing is matched anew."""
    objects = matches.objects
    count = times[matches.detections.sample[matches.turns]]
    hits, first = matches.hits, np.cumsum(count) - count
    hit, turn = spans(first[hits.turn], count[hits.turn])  # a copy of the hit for each copy of its detection
    order = np.argsort(hits.threshold[hit] * max(int(count.sum()), 1) + turn)
    hit, turn = hit[order], turn[order]
    return replace(
        matches,
        objects=objects.select(np.repeat(np.arange(len(objects)), times[objects.sample])),
        detections=matches.detections.select(np.repeat(matches.turns, count)),
        turns=np.arange(int(count.sum())),
        hits=Hits(threshold=hits.threshold[hit], turn=turn, obj=hits.obj[hit]),
        error=matches.error[hit],
    )
