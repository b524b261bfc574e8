"""Detections and scores of a detector, the work shared by all processes."""

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader

from dualdistill.data.collate import pack
from dualdistill.data.dataset import NEUTRAL_EPOCH, NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.errors import UserError
from dualdistill.evaluate.ground_truth import ground_truth_of_samples
from dualdistill.evaluate.metrics import detection_metrics
from dualdistill.evaluate.records import Detections
from dualdistill.evaluate.to_global import detect, detections_to_global
from dualdistill.experiment.experiment import Experiment
from dualdistill.ops.processes import number_of_processes
from dualdistill.structures import Detector

BATCH = 4
"""Samples a process detects in at once."""


def validator(
    fabric: Fabric, experiment: Experiment, index: NuscenesIndex, split: str, *, seed: int, workers: int
) -> Callable[[nn.Module], dict[str, float]]:
    """A function from a detector to its mAP and NDS on a split, or on `validate_samples` of its samples.

    All processes must call it together: each detects in its share of the samples. The detector's mode (training or
    evaluation) is left as it was. Raises UserError for a split without samples or annotations.
    """
    positions = samples_of_split(index, split)
    count = experiment.training.validate_samples
    if count is not None and count < len(positions):  # spread evenly: neighbours show the same scene
        positions = positions[np.linspace(0, len(positions) - 1, count).round().astype(int)]
    ground_truth = ground_truth_of_samples(index, positions)
    if len(ground_truth.boxes) == 0:
        raise UserError(
            f"Split {split!r} of {index.root} has no annotations to validate against: set training.validate_steps and "
            "training.validate_epochs to none."
        )
    dataset = NuscenesDataset(index, experiment.evaluation_data, positions, training=False, seed=seed)

    def validate(detector: nn.Module) -> dict[str, float]:
        modes = [(module, module.training) for module in detector.modules()]
        found = detect_together(fabric, detector, dataset, workers=workers)
        for module, training in modes:
            module.training = training
        metrics = detection_metrics(ground_truth, found)
        return {"mAP": float(metrics.mean_ap), "NDS": float(metrics.nd_score)}

    return validate


def detect_together(
    fabric: Fabric,
    detector: nn.Module,
    dataset: NuscenesDataset,
    *,
    workers: int,
    report: Callable[[int], None] = lambda done: None,
) -> Detections:
    """Detections of all samples of a data set, global frame, in its order: each process detects in its share of the
    samples and gets all of them. The detector is left in evaluation mode. `report`: called after each batch with the
    number of samples that this process has finished. Raises DivergedError for outputs that are not finite."""
    mine = range(fabric.global_rank, len(dataset), fabric.world_size)
    batches = [[(NEUTRAL_EPOCH, item) for item in mine[first : first + BATCH]] for first in range(0, len(mine), BATCH)]
    pinned = torch.cuda.is_available()
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=pack, num_workers=workers, pin_memory=pinned)
    detector.eval()
    parts: list[Detections] = []
    with torch.no_grad():
        for packed in loader:
            batch = packed.to(fabric.device, non_blocking=True)
            for meta, boxes in zip(batch.meta, detect(cast(Detector, detector), batch), strict=True):
                parts.append(detections_to_global(boxes, meta, sample=mine[len(parts)]))
            report(len(parts))
    gathered = [parts] * number_of_processes()
    if number_of_processes() > 1:
        dist.all_gather_object(gathered, parts)
    found = Detections.concatenate([part for share in gathered for part in share])
    return found.select(np.argsort(found.sample, kind="stable"))
