"""How alike a student's and its teacher's BEV maps are: the measure of whether imitation took place at all."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dualdistill.data.index import NuscenesIndex
from dualdistill.distill.mfd import box_indices_of_batch
from dualdistill.experiment.plain import override
from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.threads import one_thread
from dualdistill.recipes.catalogue import find
from dualdistill.train.assemble import open_dataset
from dualdistill.train.loaded_detector import LoadedDetector
from studies.design import Row

SAMPLES = 60
"""Of the validation split, evenly spread."""


def likeness(student: Path, teacher: Path, row: Row, data: Path) -> dict[str, float]:
    """Linear CKA (Kornblith et al., 2019, section 3) of the maps before the heads over the cells of validation samples.

    It is 1 for maps that are equal up to a rotation and a factor, and 0 for maps without a linear relation.

    Args:
        student: Its weights file.
        teacher: Weights file of the teacher to compare with.
        row: A row with that teacher; both networks read what its recipe does.

    Returns:
        "cka" over all cells, and "cka objects" over those whose centres lie in an annotated box.
    """
    experiment = override(find(row.recipe).build(), list(row.sets))
    dataset = open_dataset(experiment, NuscenesIndex.open(data), split="val", training=False, seed=0)
    ours, theirs = (LoadedDetector.load(file).detector for file in (student, teacher))
    cells: dict[str, list[tuple[Tensor, Tensor]]] = {"cka": [], "cka objects": []}
    with torch.no_grad(), one_thread():
        for position in torch.linspace(0, len(dataset) - 1, min(SAMPLES, len(dataset))).long().tolist():
            batch = dataset[position]
            outputs = [network(batch) for network in (ours, theirs)]
            maps = [output.neck[0].flatten(1).T.double() for output in outputs]
            grid = BevGrid.covering(outputs[0].extent, outputs[0].neck.shape[-2:])
            objects = box_indices_of_batch(batch.boxes, grid).flatten() >= 0
            cells["cka"].append((maps[0], maps[1]))
            cells["cka objects"].append((maps[0][objects], maps[1][objects]))
    return {where: linear_cka(*map(torch.cat, zip(*found, strict=True))) for where, found in cells.items()}


def linear_cka(a: Float[Tensor, "cell chan_a"], b: Float[Tensor, "cell chan_b"]) -> float:
    """Linear CKA of two maps over the same cells."""
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    return float((a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm()))
