"""The score from which a detector's boxes are worth showing."""

import numpy as np

from dualdistill.evaluate.metrics import match_evaluated
from dualdistill.evaluate.protocol import TP_THRESHOLD
from dualdistill.evaluate.records import Detections, GroundTruth


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
