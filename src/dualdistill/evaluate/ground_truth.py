"""The annotations of a split, from the index of a nuScenes root."""

import numpy as np
from jaxtyping import Int

from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.errors import UserError
from dualdistill.evaluate.protocol import ATTRIBUTES, RACK_CATEGORY
from dualdistill.evaluate.records import GlobalBoxes, GroundTruth


def ground_truth_of_split(index: NuscenesIndex, split: str) -> GroundTruth:
    """All annotations of the samples of `split`.

    Raises:
        UserError: for an unknown split, and for one without annotations (such as the official test split).
    """
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
    count = index.annotation_offset[samples + 1] - first
    sample = np.repeat(np.arange(len(samples)), count)
    rows = np.arange(len(sample)) + np.repeat(first - (np.cumsum(count) - count), count)
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
