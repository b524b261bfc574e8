"""The boxes of nuScenes as columns."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from dualdistill.data import tables
from dualdistill.data.table_columns import in_order, read_table_columns
from dualdistill.data.tables import read_table, require_all
from dualdistill.data.tokens import Positions, as_texts
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
"""Detection class of each nuScenes category; every other category is ignored (docs/methods/centerpoint.md#classes)."""

MAX_SECONDS_BETWEEN_BOXES = 1.5
"""Boxes of an instance further apart give no velocity; twice that for a central difference (devkit)."""

TABLE = "sample_annotation"


def annotation_columns(
    folder: Path,
    records: dict[str, np.ndarray],
    sample_positions: Positions,
    sample_timestamp_us: Int[np.ndarray, "samples"],
    categories: list[tables.Named],
    attributes: list[tables.Named],
) -> dict[str, np.ndarray | list[str]]:
    """Boxes by sample, in the order of the table within one.

    Args:
        records: Columns of the table; they are taken out of it.

    Raises:
        UserError: for a box that is none, or a link that leads nowhere.
    """
    _link(folder, records)
    records, sample = _by_sample(records, sample_positions)
    tokens = records["token"]
    center, size, rotation = _boxes(folder, records)
    instances = read_table_columns(folder, "instance", tables.Instance)
    visibilities = sorted(read_table(folder, "visibility", tables.Visibility), key=lambda v: v.level)

    def links(positions: Positions, field: str, *, may_be_empty: bool = False) -> Int[np.ndarray, "boxes"]:
        return positions.of(records.pop(field), tokens, f"{TABLE}.{field}", may_be_empty=may_be_empty)

    def positions(name: str, named: Sequence[tables.Named | tables.Visibility]) -> Positions:
        return Positions(folder, name, as_texts(each.token for each in named))

    instance = links(Positions(folder, "instance", instances["token"]), "instance_token")
    category = positions("category", categories).of(
        instances["category_token"], instances["token"], "instance.category_token"
    )[instance]
    attribute = links(positions("attribute", attributes), "attribute_tokens", may_be_empty=True)
    visibility = links(positions("visibility", visibilities), "visibility_token", may_be_empty=True)
    class_of_category = np.array([_class_index(c.name) for c in categories], dtype=np.int64)
    seconds = sample_timestamp_us[sample] * 1e-6
    return {
        "annotation_sample": sample,
        "annotation_token": tokens,
        "annotation_instance": instance,
        "annotation_center": center,
        "annotation_size": size,
        "annotation_rotation": rotation,
        "annotation_velocity": box_velocities(center, seconds, records.pop("prev"), records.pop("next")),
        "annotation_category": category,
        "annotation_class": class_of_category[category],
        "annotation_attribute": attribute,
        "annotation_visibility": visibility + 1,
        "annotation_lidar_points": records["num_lidar_pts"],
        "annotation_radar_points": records["num_radar_pts"],
    }


def _link(folder: Path, records: dict[str, np.ndarray]) -> None:
    """Positions in place of the tokens of an instance's box before and after: its boxes tend to follow each other."""
    tokens = records["token"]
    positions, rows = Positions(folder, TABLE, tokens), np.arange(len(tokens))
    for field, step in (("prev", -1), ("next", 1)):
        linked = records.pop(field)
        records[field] = positions.of(linked, tokens, f"{TABLE}.{field}", may_be_empty=True, guess=rows + step)


def _by_sample(
    records: dict[str, np.ndarray], sample_positions: Positions
) -> tuple[dict[str, np.ndarray], Int[np.ndarray, "boxes"]]:
    """Records in the order of their samples, and the position of each one's sample."""
    sample = sample_positions.of(records.pop("sample_token"), records["token"], f"{TABLE}.sample_token")
    order = np.argsort(sample, kind="stable")
    sorted_records = in_order(records, order)
    place = np.full(len(order) + 1, -1)  # the last for -1, none
    place[order] = np.arange(len(order))
    for field in ("prev", "next"):
        sorted_records[field] = place[sorted_records[field]]
    return sorted_records, sample[order]


def _boxes(
    folder: Path, records: dict[str, np.ndarray]
) -> tuple[Float[np.ndarray, "boxes 3"], Float[np.ndarray, "boxes 3"], Float[np.ndarray, "boxes 4"]]:
    """Centre, size (length, width, height) and quaternion of each record, fit to compute with."""
    tokens, center, rotation = records["token"], records.pop("translation"), records.pop("rotation")
    size = records.pop("size")[:, [1, 0, 2]]
    finite = np.isfinite(center).all(axis=1) & np.isfinite(size).all(axis=1) & np.isfinite(rotation).all(axis=1)
    require_all(np.asarray(finite), folder, TABLE, tokens, "a number that is not finite")
    require_all(size.min(axis=1, initial=np.inf) > 0, folder, TABLE, tokens, "a size that is not positive")
    require_all(np.abs(rotation).sum(axis=1) > 0, folder, TABLE, tokens, "a rotation of length zero")
    return center, size, rotation


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
