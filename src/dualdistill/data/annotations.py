"""Boxes of a training sample, and resampling by their classes, CBGS
(docs/methods/centerpoint.md#class-balanced-resampling)."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dualdistill.data.index import NuscenesIndex
from dualdistill.geometry.boxes import transform_boxes
from dualdistill.geometry.transforms import rotation_from_quaternion
from dualdistill.structures import CLASSES, Boxes


def usable(index: NuscenesIndex, rows: slice = slice(None)) -> Bool[np.ndarray, "boxes"]:
    """Which annotations may train: of a detection class, with at least one LiDAR or radar point."""
    points = index.annotation_lidar_points[rows] + index.annotation_radar_points[rows]
    return (index.annotation_class[rows] >= 0) & (points > 0)


def sample_boxes(index: NuscenesIndex, sample: int, bev_from_global: Float[Tensor, "4 4"]) -> Boxes:
    """Usable annotations of a sample, seen from a BEV frame; float64, velocities over the ground.

    Args:
        bev_from_global: Rigid; may be near enough to upright only (LIDAR_TOP), see `transform_boxes`.
    """
    rows = index.annotations(sample)
    kept = usable(index, rows)

    def column(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values[rows][kept])  # a copy: the mapped columns are read-only

    heading = rotation_from_quaternion(column(index.annotation_rotation))[..., 0]
    boxes = Boxes(
        center=column(index.annotation_center),
        size=column(index.annotation_size),
        yaw=torch.atan2(heading[:, 1], heading[:, 0]),
        velocity=column(index.annotation_velocity),
        label=column(index.annotation_class),
    )
    return transform_boxes(bev_from_global, boxes)


def within_reach(boxes: Boxes, reach: float) -> Boxes:
    """Boxes whose centre lies strictly inside the square of +-`reach` metres, in float32."""
    kept = boxes.select((boxes.center[:, :2].abs() < reach).all(dim=1))
    return kept._each(lambda column: column.float() if column.is_floating_point() else column)


def classes_present(index: NuscenesIndex, positions: Int[np.ndarray, "samples"]) -> Bool[np.ndarray, "samples klass"]:
    """Whether each sample has a usable annotation of each class."""
    sample = np.repeat(np.arange(len(index)), np.diff(index.annotation_offset))
    rows = usable(index)
    present = np.zeros((len(index), len(CLASSES)), dtype=bool)
    present[sample[rows], index.annotation_class[rows]] = True
    return present[positions]


def class_balanced(
    index: NuscenesIndex, positions: Int[np.ndarray, "samples"], seed: int
) -> Int[np.ndarray, "resampled"]:
    """Positions resampled so that each class has its tenth: drawn once, not every epoch.

    With T the number of (sample, class present in it) pairs, T/10 samples are drawn with replacement from those of each
    class, class after class; the official train split grows from 28,130 to about 123,600. A class that occurs nowhere
    contributes nothing; without any usable annotation the positions come back as they are.
    """
    present = classes_present(index, positions)
    share = int(present.sum() / len(CLASSES))
    if share == 0:
        return positions
    generator = np.random.default_rng(seed)
    return np.concatenate([generator.choice(positions[having], share) for having in present.T if having.any()])
