"""The score from which a detector's boxes are worth showing."""

import numpy as np

from dualdistill.evaluate.metrics import match_evaluated
from dualdistill.evaluate.protocol import DETECTION_CVPR_2019, DetectionConfig
from dualdistill.evaluate.records import Detections, GroundTruth


def balanced_score(
    ground_truth: GroundTruth, detections: Detections, config: DetectionConfig = DETECTION_CVPR_2019
) -> float:
    """The lowest shown score with the best F1 of all classes together, matched at the distance of the TP errors (2 m).

    Lower ones add more false boxes than found objects. 1 where nothing is found.
    """
    matches = match_evaluated(ground_truth, detections, config)
    found = matches.hits.turn[matches.hits.threshold == config.distances.index(config.tp_distance)]
    if not len(found):
        return 1.0
    scores = matches.detections.score[matches.turns]
    hit = np.isin(np.arange(len(scores)), found)
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * np.cumsum(hit[order]) / (np.arange(1, len(scores) + 1) + len(matches.objects))
    return float(scores[order][f1.argmax()])
