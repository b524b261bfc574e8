"""The boxes of nuScenes as columns."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from dualdistill.data import tables
from dualdistill.data.tables import Positions, read_table, require_all
from dualdistill.structures import CLASSES

CLASS_OF_CATEGORY = {
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.barrier": "barrier",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
}
"""Detection class of each nuScenes category; every other category is ignored (spec bevdepth 10.3)."""

MAX_SECONDS_BETWEEN_BOXES = 1.5
"""Boxes of an instance further apart give no velocity; twice that for a central difference (devkit)."""

TABLE = "sample_annotation"


def annotation_columns(
    folder: Path,
    sample_positions: Positions,
    sample_timestamp_us: Int[np.ndarray, "samples"],
    categories: list[tables.Named],
    attributes: list[tables.Named],
) -> dict[str, np.ndarray | list[str]]:
    """Boxes by sample, in the order of the table within one.

    Raises:
        UserError: for a box that is none, or a link that leads nowhere.
    """
    records, sample = _by_sample(read_table(folder, TABLE, tables.Annotation), sample_positions)
    center, size, rotation = _boxes(folder, records)
    tokens = [record.token for record in records]
    own_positions = Positions(folder, TABLE, tokens)
    instances = read_table(folder, "instance", tables.Instance)
    instance = _links(
        Positions(folder, "instance", [i.token for i in instances]),
        records,
        [r.instance_token for r in records],
        f"{TABLE}.instance_token",
    )
    category = _links(
        Positions(folder, "category", [c.token for c in categories]),
        instances,
        [i.category_token for i in instances],
        "instance.category_token",
    )[instance]
    attribute = _links(
        Positions(folder, "attribute", [a.token for a in attributes]),
        records,
        [r.attribute_tokens[0] if r.attribute_tokens else "" for r in records],
        f"{TABLE}.attribute_tokens",
        may_be_empty=True,
    )
    visibilities = sorted(read_table(folder, "visibility", tables.Visibility), key=lambda v: v.level)
    visibility = _links(
        Positions(folder, "visibility", [v.token for v in visibilities]),
        records,
        [r.visibility_token for r in records],
        f"{TABLE}.visibility_token",
        may_be_empty=True,
    )
    previous = _links(own_positions, records, [r.prev for r in records], f"{TABLE}.prev", may_be_empty=True)
    following = _links(own_positions, records, [r.next for r in records], f"{TABLE}.next", may_be_empty=True)
    class_of_category = np.array([_class_index(c.name) for c in categories], dtype=np.int64)
    seconds = sample_timestamp_us[sample] * 1e-6
    return {
        "annotation_sample": sample,
        "annotation_token": tokens,
        "annotation_instance": instance,
        "annotation_center": center,
        "annotation_size": size,
        "annotation_rotation": rotation,
        "annotation_velocity": box_velocities(center, seconds, previous, following),
        "annotation_category": category,
        "annotation_class": class_of_category[category],
        "annotation_attribute": attribute,
        "annotation_visibility": visibility + 1,
        "annotation_lidar_points": np.array([r.num_lidar_pts for r in records], dtype=np.int64),
        "annotation_radar_points": np.array([r.num_radar_pts for r in records], dtype=np.int64),
    }


def _by_sample(
    records: list[tables.Annotation], sample_positions: Positions
) -> tuple[list[tables.Annotation], Int[np.ndarray, "boxes"]]:
    """Records in the order of their samples, and the position of each one's sample."""
    sample = _links(sample_positions, records, [r.sample_token for r in records], f"{TABLE}.sample_token")
    order = np.argsort(sample, kind="stable")
    return [records[i] for i in order], sample[order]


def _boxes(
    folder: Path, records: list[tables.Annotation]
) -> tuple[Float[np.ndarray, "boxes 3"], Float[np.ndarray, "boxes 3"], Float[np.ndarray, "boxes 4"]]:
    """Centre, size (length, width, height) and quaternion of each record, fit to compute with."""
    center = np.array([r.translation for r in records], dtype=np.float64).reshape(-1, 3)
    size = np.array([r.size for r in records], dtype=np.float64).reshape(-1, 3)[:, [1, 0, 2]]
    rotation = np.array([r.rotation for r in records], dtype=np.float64).reshape(-1, 4)
    finite = np.isfinite(center).all(axis=1) & np.isfinite(size).all(axis=1) & np.isfinite(rotation).all(axis=1)
    require_all(np.asarray(finite), folder, TABLE, records, "a number that is not finite")
    require_all(size.min(axis=1, initial=np.inf) > 0, folder, TABLE, records, "a size that is not positive")
    require_all(np.abs(rotation).sum(axis=1) > 0, folder, TABLE, records, "a rotation of length zero")
    return center, size, rotation


def _links(
    positions: Positions,
    records: Sequence[tables.Annotation | tables.Instance],
    tokens: list[str],
    field: str,
    *,
    may_be_empty: bool = False,
) -> Int[np.ndarray, "records"]:
    found = positions.of(tokens, [record.token for record in records], field, may_be_empty=may_be_empty)
    return np.array(found, dtype=np.int64)


def _class_index(category: str) -> int:
    name = CLASS_OF_CATEGORY.get(category)
    return -1 if name is None else CLASSES.index(name)


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
