"""What a finished run is worth: scores, by class and by distance, depth error, likeness to the teachers."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from dualdistill.commands.evaluate import EVALUATION_BATCH
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.evaluate.bootstrap import bootstrap_scenes
from dualdistill.evaluate.filters import is_evaluated
from dualdistill.evaluate.ground_truth import ground_truth_of_split
from dualdistill.evaluate.metrics import average_matches, match_all
from dualdistill.evaluate.records import Detections, GlobalBoxes, GroundTruth
from dualdistill.evaluate.submission import read_submission
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.science.record import Band, DepthError, Scores
from dualdistill.structures import CLASSES
from dualdistill.train.assemble import evaluation_loader, split_names
from dualdistill.train.loaded_detector import LoadedDetector

DEPTH_BANDS = (0.0, 10.0, 20.0, 30.0, 40.0, 60.0)
"""Borders of the ranges in which depth errors are told apart, metres."""
OBJECT_HEAT = 0.1
"""A cell counts as an object's where the heat-map target of any class is above this."""


def scores_of(
    metrics: dict[str, Any], results: Path, index: NuscenesIndex, bands: Sequence[float], replicates: int
) -> Scores:
    """Scores of a result file that has been evaluated to `metrics`."""
    ground_truth = ground_truth_of_split(index, split_names(index.version)[1])
    detections = read_submission(results).for_samples(ground_truth.sample_tokens, others="ignore")
    drawn = bootstrap_scenes(ground_truth, detections, replicates=replicates, seed=0)
    return Scores(
        mean_ap=metrics["mean_ap"],
        nd_score=metrics["nd_score"],
        tp_errors={name: None if math.isnan(value) else value for name, value in metrics["tp_errors"].items()},
        class_ap=metrics["mean_dist_aps"],
        bands=distance_bands(ground_truth, detections, bands),
        replicates_mean_ap=drawn.mean_ap.tolist(),
        replicates_nd_score=drawn.nd_score.tolist(),
    )


def distance_bands(ground_truth: GroundTruth, detections: Detections, borders: Sequence[float]) -> list[Band]:
    """AP among the evaluated boxes between two distances from the ego vehicle, detections and annotations alike."""
    objects = ground_truth.boxes.select(is_evaluated(ground_truth.boxes, ground_truth))
    found = detections.select(is_evaluated(detections.boxes, ground_truth))
    far_objects, far_found = _distance(objects, ground_truth), _distance(found.boxes, ground_truth)
    bands = []
    for low, high in pairwise(borders):
        here = objects.select((low <= far_objects) & (far_objects < high))
        metrics = average_matches(match_all(here, found.select((low <= far_found) & (far_found < high))))
        counts = np.bincount(here.label, minlength=len(CLASSES))
        present = [k for k in range(len(CLASSES)) if counts[k]]
        class_ap = {CLASSES[k]: float(metrics.class_ap[k]) for k in present}
        bands.append(
            Band(
                low=low,
                high=high,
                mean_ap=float(np.mean(list(class_ap.values()))) if class_ap else None,
                class_ap=class_ap,
                objects={CLASSES[k]: int(counts[k]) for k in present},
            )
        )
    return bands


def _distance(boxes: GlobalBoxes, ground_truth: GroundTruth) -> np.ndarray:
    return np.linalg.norm(boxes.center[:, :2] - ground_truth.ego_position[boxes.sample, :2], axis=1)


@torch.no_grad()
def look_inside(
    student: LoadedDetector, teachers: dict[str, LoadedDetector], index: NuscenesIndex
) -> tuple[DepthError | None, dict[str, dict[str, float]]]:
    """Depth error of a student, and how alike its neck map is to that of each teacher, over the validation split.

    Depths are the LiDAR's for everybody, never those of virtual points.
    """
    assert isinstance(student.detector, BevDepth)
    split = split_names(index.version)[1]
    depth = DepthErrors()
    likeness: dict[str, dict[str, float]] = {}
    alone: dict[str, LoadedDetector | None] = {"": None}
    for name, teacher in (dict[str, LoadedDetector | None](teachers) or alone).items():
        config = student.experiment.data
        if teacher is not None:
            seen = teacher.experiment.data
            virtual = seen.virtual_points and replace(seen.virtual_points, depth_from_virtual=False)
            config = replace(config, points=True, num_sweeps=seen.num_sweeps, virtual_points=virtual)
        dataset = NuscenesDataset(index, config, samples_of_split(index, split), training=False, seed=0)
        alike = {"objects": Likeness(), "all": Likeness()}
        first = not likeness
        for batch in evaluation_loader(dataset, EVALUATION_BATCH, 0):
            learnt = student.detector(batch)
            if first and batch.depth is not None and learnt.camera is not None:
                depth.add(learnt.camera.depth_logits, student.detector.depths, batch.depth)
            if teacher is None:
                continue
            assert isinstance(teacher.detector, CenterPoint)
            taught = F.interpolate(teacher.detector(batch).neck, learnt.neck.shape[-2:], mode="bilinear")
            heat = student.detector.targets(batch).heatmap.amax(dim=1, keepdim=True)
            objects = F.adaptive_max_pool2d(heat, learnt.neck.shape[-2:])[:, 0] > OBJECT_HEAT
            for key, cells in (("objects", objects), ("all", torch.ones_like(objects))):
                alike[key].add(_cells(learnt.neck, cells), _cells(taught, cells))
        likeness[name] = {key: value.cka for key, value in alike.items() if not math.isnan(value.cka)}
    likeness.pop("", None)
    return depth.record(), likeness


def _cells(maps: Float[Tensor, "batch chan y x"], cells: Bool[Tensor, "batch y x"]) -> Float[Tensor, "cells chan"]:
    return maps.permute(0, 2, 3, 1)[cells].double()


class Likeness:
    """Linear CKA of two maps (Kornblith et al., ICML 2019, equation 4, features centred), gathered batch by batch.

    It is 1 for maps that are equal up to rotation and scale of their channels, 0 for uncorrelated ones: no adapter is
    needed to compare a student that had one with a student that had none.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sums: tuple[Tensor, ...] = ()

    def add(self, a: Float[Tensor, "cells chan_a"], b: Float[Tensor, "cells chan_b"]) -> None:
        new = (a.sum(0), b.sum(0), a.T @ a, b.T @ b, a.T @ b)
        self.sums = tuple(map(torch.add, self.sums, new)) if self.sums else new
        self.count += len(a)

    @property
    def cka(self) -> float:
        """NaN where a map is constant or nothing was seen."""
        if self.count < 2:
            return math.nan
        a, b, aa, bb, ab = self.sums
        aa, bb, ab = (moment - torch.outer(x, y) / self.count for moment, x, y in ((aa, a, a), (bb, b, b), (ab, a, b)))
        scale = float(aa.norm() * bb.norm())
        return float(ab.square().sum()) / scale if scale > 0 else math.nan


class DepthErrors:
    """Errors of expected depths, gathered batch by batch."""

    def __init__(self) -> None:
        self.errors: list[Tensor] = []
        self.truths: list[Tensor] = []

    def add(
        self,
        logits: Float[Tensor, "batch cam depth h w"],
        depths: Float[Tensor, "depth"],
        truth: Float[Tensor, "batch cam h w"],
    ) -> None:
        """`depths` are where the bins begin; cells without a label (0) do not count."""
        middles = depths + (depths[1] - depths[0]) / 2
        expected = (logits.float().softmax(dim=2) * middles[:, None, None]).sum(dim=2)
        known = truth > 0
        if not known.any():
            return
        self.errors.append((expected[known] - truth[known]).abs())
        self.truths.append(truth[known])

    def record(self) -> DepthError | None:
        """None if there was no label."""
        if not self.errors:
            return None
        error, truth = (torch.cat(parts) for parts in (self.errors, self.truths))
        bands = {}
        for low, high in pairwise(DEPTH_BANDS):
            here = (low <= truth) & (truth < high)
            if here.any():
                bands[f"{low:.0f}-{high:.0f}"] = float(error[here].mean())
        return DepthError(
            cells=len(error),
            mean_absolute=float(error.mean()),
            mean_relative=float((error / truth).mean()),
            bands=bands,
        )
