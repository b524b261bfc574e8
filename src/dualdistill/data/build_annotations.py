"""The boxes of nuScenes as columns."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from dualdistill.data.plausible import FARTHEST
from dualdistill.data.read_tables import Columns, Table
from dualdistill.data.tables import Instance, SampleAnnotation, Visibility
from dualdistill.structures import CLASSES

CATEGORIES = {
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.wheelchair": None,
    "human.pedestrian.stroller": None,
    "human.pedestrian.personal_mobility": None,
    "human.pedestrian.police_officer": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "animal": None,
    "vehicle.car": "car",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.truck": "truck",
    "vehicle.construction": "construction_vehicle",
    "vehicle.emergency.ambulance": None,
    "vehicle.emergency.police": None,
    "vehicle.trailer": "trailer",
    "movable_object.barrier": "barrier",
    "movable_object.trafficcone": "traffic_cone",
    "movable_object.pushable_pullable": None,
    "movable_object.debris": None,
    "static_object.bicycle_rack": None,
}
"""All categories of nuScenes, and the detection class of each; boxes of those without one are ignored.

Source: nuScenes detection task, https://www.nuscenes.org/object-detection (general mapping of classes).
"""
CLASS_OF_CATEGORY = {category: name for category, name in CATEGORIES.items() if name is not None}

MAX_SECONDS_BETWEEN_BOXES = 1.5
"""Boxes of an instance further apart give no velocity; twice that for a central difference (devkit)."""


def annotation_columns(
    folder: Path,
    samples: Table,
    sample_timestamp_us: Int[np.ndarray, "samples"],
    categories: Table,
    attributes: Table,
) -> Columns:
    """Boxes by sample, in the order of the table within one.

    Args:
        categories: With their names.

    Raises:
        UserError: for a box that is degenerate, or a link that leads nowhere or the wrong way.
    """
    boxes = Table(
        folder,
        SampleAnnotation,
        "token_text sample_token instance_token visibility_token attribute_tokens translation rotation size prev next "
        "num_lidar_pts num_radar_pts",
    )
    sample = samples.rows(boxes, "sample_token")
    order = np.argsort(sample, kind="stable")
    boxes.sort(order)
    sample = sample[order]
    instances, visibilities = Table(folder, Instance, "category_token"), Table(folder, Visibility, "level")
    visibilities.sort(np.argsort(visibilities["level"].to_numpy(zero_copy_only=False)))

    instance = instances.rows(boxes, "instance_token")
    before, after = boxes.links(instance, sample, "instance")
    category = categories.rows(instances, "category_token")[instance]
    classes = map(CLASS_OF_CATEGORY.get, categories["name"].to_pylist())
    class_of_category = np.array([-1 if name is None else CLASSES.index(name) for name in classes], dtype=np.int64)
    boxes.require_poses()
    center, size = boxes["translation"], boxes["size"][:, [1, 0, 2]]
    boxes.require((size > 0).all(axis=1), "size", "a size that is not positive")
    boxes.require((size < FARTHEST).all(axis=1), "size", f"a size of {FARTHEST:g} m or more")
    return {
        "annotation_sample": sample,
        "annotation_token": boxes["token_text"],
        "annotation_center": center,
        "annotation_size": size,
        "annotation_rotation": boxes["rotation"],
        "annotation_velocity": box_velocities(center, sample_timestamp_us[sample] * 1e-6, before, after),
        "annotation_category": category,
        "annotation_class": class_of_category[category],
        "annotation_attribute": attributes.rows(boxes, "attribute_tokens", optional=True),
        "annotation_visibility": visibilities.rows(boxes, "visibility_token", optional=True) + 1,
        "annotation_lidar_points": boxes["num_lidar_pts"],
        "annotation_radar_points": boxes["num_radar_pts"],
    }


def box_velocities(
    center: Float[np.ndarray, "boxes 3"],
    seconds: Float[np.ndarray, "boxes"],
    previous: Int[np.ndarray, "boxes"],
    following: Int[np.ndarray, "boxes"],
) -> Float[np.ndarray, "boxes 2"]:
    """Velocity over the ground of each annotated box, metres a second, NaN where unknown.

    Central difference where the instance has a box before and after, one-sided where it has one of them: the
    rule of the devkit's `box_velocity`.

    Args:
        center: Global positions.
        seconds: Time of each box's sample.
        previous: Row of the instance's box before, -1 for none.
        following: Row of the one after, -1 for none.
    """
    itself = np.arange(len(center))
    first = np.where(previous >= 0, previous, itself)
    last = np.where(following >= 0, following, itself)
    gap = seconds[last] - seconds[first]
    limit = MAX_SECONDS_BETWEEN_BOXES * np.where((previous >= 0) & (following >= 0), 2, 1)
    known = (first != last) & (gap > 0) & (gap <= limit)
    velocity = np.full((len(center), 2), np.nan)
    velocity[known] = (center[last[known], :2] - center[first[known], :2]) / gap[known, None]
    return velocity
