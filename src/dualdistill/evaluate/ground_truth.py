"""The annotations of a split, and which boxes the benchmark evaluates."""

import numpy as np
import torch
from jaxtyping import Bool, Int

from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.errors import UserError
from dualdistill.evaluate.protocol import ATTRIBUTES, RACK_CATEGORY, RACKED_CLASSES, REACH
from dualdistill.evaluate.records import GlobalBoxes, GroundTruth, spans
from dualdistill.geometry.transforms import rotation_from_quaternion
from dualdistill.structures import CLASSES


def ground_truth_of_split(index: NuscenesIndex, split: str) -> GroundTruth:
    """All annotations of the samples of `split`. Raises UserError for an unknown split, and for one without annotations
    (such as the official test split)."""
    ground_truth = ground_truth_of_samples(index, samples_of_split(index, split))
    if len(ground_truth.boxes) == 0:
        raise UserError(
            f"split {split!r} of {index.root} ({index.version}) has no annotation to evaluate against: "
            f"choose another split, or submit the result file to the benchmark's server"
        )
    return ground_truth


def ground_truth_of_samples(index: NuscenesIndex, samples: Int[np.ndarray, "samples"]) -> GroundTruth:
    """All annotations of the samples at these positions of the index."""
    first = index.annotation_offset[samples]
    sample, rows = spans(first, index.annotation_offset[samples + 1] - first)
    is_rack = np.array([name == RACK_CATEGORY for name in index.categories], dtype=bool)
    racks = is_rack[index.annotation_category[rows]]
    detected = index.annotation_class[rows] >= 0
    return GroundTruth(
        sample_tokens=tuple(index.sample_token[position] for position in samples),
        ego_position=np.array(index.ego_translation[index.sample_lidar[samples]], dtype=np.float64),
        scene=index.sample_scene[samples].astype(np.int64),
        boxes=_boxes(index, rows[detected], sample[detected]),
        racks=_boxes(index, rows[racks], sample[racks]),
    )


def _boxes(index: NuscenesIndex, rows: np.ndarray, sample: np.ndarray) -> GlobalBoxes:
    lidar, radar = index.annotation_lidar_points[rows], index.annotation_radar_points[rows]
    return GlobalBoxes(
        sample=sample,
        label=index.annotation_class[rows].astype(np.int64),
        center=index.annotation_center[rows],
        size=index.annotation_size[rows],
        rotation=index.annotation_rotation[rows],
        velocity=index.annotation_velocity[rows],
        attribute=_benchmark_attributes(index)[index.annotation_attribute[rows]],
        num_points=(lidar + radar).astype(np.int64),
    )


def _benchmark_attributes(index: NuscenesIndex) -> np.ndarray:
    """Id in `protocol.ATTRIBUTES` of each attribute of the root, which must have no others; the last entry, -1, is for
    "none"."""
    unknown = set(index.attributes) - set(ATTRIBUTES)
    if unknown:
        raise UserError(
            f"{index.root / index.version / 'attribute.json'} has the attribute {min(unknown)!r}, which is not one of "
            f"the benchmark's: {', '.join(ATTRIBUTES)}"
        )
    return np.array([*(ATTRIBUTES.index(name) for name in index.attributes), -1])


def is_evaluated(boxes: GlobalBoxes, ground_truth: GroundTruth) -> Bool[np.ndarray, "boxes"]:
    """Mask of the evaluated `boxes`, annotations or detections of the samples of `ground_truth`: within range, with at
    least one point, and not a bike in a rack."""
    offset = boxes.center[:, :2] - ground_truth.ego_position[boxes.sample, :2]
    near = np.sqrt((offset**2).sum(axis=1)) < REACH[boxes.label]
    keep = near & (boxes.num_points != 0)
    bikes = np.flatnonzero(keep & np.isin(boxes.label, [CLASSES.index(name) for name in RACKED_CLASSES]))
    keep[bikes] = ~in_rack(boxes.select(bikes), ground_truth.racks)
    return keep


def in_rack(boxes: GlobalBoxes, racks: GlobalBoxes) -> Bool[np.ndarray, "boxes"]:
    """Whether the centre of each box lies in (or on the border of) a rack of its sample."""
    order = np.argsort(racks.sample, kind="stable")
    first = np.searchsorted(racks.sample[order], boxes.sample, side="left")
    count = np.searchsorted(racks.sample[order], boxes.sample, side="right") - first
    box, place = spans(first, count)
    rack = order[place]
    global_from_rack = rotation_from_quaternion(torch.from_numpy(racks.rotation[rack])).numpy()
    offset = np.einsum("nji,nj->ni", global_from_rack, boxes.center[box] - racks.center[rack])
    inside = (np.abs(offset) <= racks.size[rack] / 2).all(axis=1)
    result = np.zeros(len(boxes), dtype=bool)
    result[box[inside]] = True
    return result
