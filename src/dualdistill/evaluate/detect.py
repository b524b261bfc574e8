"""Detections of a network in one batch."""

import torch

from dualdistill.errors import DivergedError
from dualdistill.structures import Batch, Boxes, Detector


def detect(detector: Detector, batch: Batch) -> tuple[Boxes, ...]:
    """Detections of each sample of one batch, in its BEV frame. Raises DivergedError for outputs that are not
    finite."""
    output = detector(batch)
    found = detector.detect(output, batch)
    maps = {"heatmap": output.predictions.heatmap, "box": output.predictions.regression}
    for name, values in maps.items():
        _require_finite(values, name)
    for boxes in found:  # finite logarithms of sizes may still be infinite sizes
        for name in ("center", "size", "yaw", "velocity"):
            _require_finite(getattr(boxes, name), name)
    return found


def _require_finite(values: torch.Tensor, name: str) -> None:
    if not values.isfinite().all():
        bad = float(values[~values.isfinite()][0])
        raise DivergedError(f"Its {name} output contains {bad}.")
