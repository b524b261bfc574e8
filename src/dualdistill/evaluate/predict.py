"""Let a detector answer for every sample of a loader."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import torch

from dualdistill.structures import Batch, BevOutput, Boxes, SampleMeta


@runtime_checkable
class Detector(Protocol):
    """What prediction asks of a detector."""

    def __call__(self, batch: Batch) -> BevOutput: ...
    def detect(self, output: BevOutput, batch: Batch) -> tuple[Boxes, ...]: ...
    def eval(self) -> Any: ...


def predict(
    detector: Detector,
    batches: Iterable[Batch],
    *,
    device: torch.device | str = "cpu",
    say: Callable[[int], None] = lambda done: None,
) -> list[tuple[SampleMeta, Boxes]]:
    """Detections of each sample in its BEV frame, on the CPU, in the loader's order.

    `say` is told how many samples are done.
    """
    detector.eval()
    answers: list[tuple[SampleMeta, Boxes]] = []
    with torch.no_grad():
        for batch in batches:
            batch = batch.to(device)
            found = detector.detect(detector(batch), batch)
            answers += [(meta, boxes.to("cpu")) for meta, boxes in zip(batch.meta, found, strict=True)]
            say(len(answers))
    return answers
