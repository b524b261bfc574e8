"""Detections of a network for every sample of a loader."""

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import nn

from dualdistill.data.collate import PackedBatch
from dualdistill.errors import DivergedError
from dualdistill.structures import Batch, Boxes, Detector, SampleMeta


def detect_all(
    detector: nn.Module,
    batches: Iterable[Batch | PackedBatch],
    *,
    device: torch.device | str = "cpu",
    report: Callable[[int], None] = lambda done: None,
) -> list[tuple[SampleMeta, Boxes]]:
    """Detections of each sample in its BEV frame, on the CPU, in the loader's order. `report`: called after each batch
    with the number of finished samples. Raises DivergedError for outputs that are not finite."""
    detector.eval()
    results: list[tuple[SampleMeta, Boxes]] = []
    with torch.no_grad():
        for packed in batches:
            batch = packed.to(device, non_blocking=True)
            found = detect(cast(Detector, detector), batch)
            results += [(meta, boxes.to("cpu")) for meta, boxes in zip(batch.meta, found, strict=True)]
            report(len(results))
    return results


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
