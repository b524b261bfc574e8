"""Detections of a network in one batch."""

from dualdistill.errors import DivergedError
from dualdistill.structures import Batch, Boxes, Detector


def detect(detector: Detector, batch: Batch) -> tuple[Boxes, ...]:
    """Detections of each sample of one batch, in its BEV frame. Raises DivergedError for outputs that are not
    finite."""
    output = detector(batch)
    found = detector.detect(output, batch)
    named = [("heatmap", output.predictions.heatmap), ("box", output.predictions.regression)]
    # Finite logarithms of sizes may still be infinite sizes.
    named += [(name, getattr(boxes, name)) for boxes in found for name in ("center", "size", "yaw", "velocity")]
    for name, values in named:
        if not values.isfinite().all():
            bad = float(values[~values.isfinite()][0])
            raise DivergedError(f"Its {name} output contains {bad}.")
    return found
