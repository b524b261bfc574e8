"""Metrics that point to a known mistake rather than to a weak detector."""

import math
from collections.abc import Mapping
from typing import Any

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
