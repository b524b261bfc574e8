"""Boxes of a sample as training sees them."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dualdistill.data.index import NuscenesIndex
from dualdistill.geometry.boxes import transform_boxes
from dualdistill.geometry.transforms import rotation_from_quaternion
from dualdistill.structures import Boxes


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
