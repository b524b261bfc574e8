"""From JSON tables to columns: links become positions, classes numbers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Int

from dualdistill.data.plausible import (
    FARTHEST,
    FARTHEST_MOUNTING,
    LARGEST_SIDE,
    MATRIX,
    good_matrices,
    good_mountings,
    good_principal_points,
    good_sizes,
)
from dualdistill.data.read_tables import Columns, Table, key_of
from dualdistill.data.tables import (
    Attribute,
    CalibratedSensor,
    Category,
    EgoPose,
    Instance,
    Sample,
    SampleAnnotation,
    SampleData,
    Scene,
    Sensor,
    Visibility,
)
from dualdistill.errors import UserError
from dualdistill.geometry.transforms import rigid, rotation_from_quaternion
from dualdistill.structures import CAMERAS, CLASSES

CHANNELS = (*CAMERAS, "LIDAR_TOP")
"""Sensors an index keeps; `data_channel` counts in this order."""

LIDAR = CHANNELS.index("LIDAR_TOP")

_NOT_INSIDE = r"^/|^\w:|\\|[\x00-\x1f]|(^|/)\.\.(/|$)|^$"
"""File names that are absolute, leave the root, or are none."""

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


def build_columns(folder: Path) -> Iterator[tuple[str, Columns]]:
    """Name and columns of each file of an index, from the version folder of a nuScenes root.

    One file follows another, so that those written need not be held.

    Raises:
        UserError: for tables that are missing, cut off, or contradict each other.
    """
    scenes, samples, sample_table = _scenes_and_samples(folder)
    yield "scenes", scenes
    calibrations, channels, calibration_table = _calibrations(folder)
    yield "calibrations", calibrations
    data, data_table = _sensor_data(folder, sample_table, calibration_table, channels)
    _require_images(data, data_table, calibrations["calibration_intrinsics"])
    scene = samples["sample_scene"][data["data_sample"]]
    for name in ("data_prev", "data_next"):  # chains end with their scene, so that following one needs no check
        data[name] = np.where(scene[data[name]] == scene, data[name], -1)
    key_rows = np.full((len(sample_table), len(CHANNELS)), -1, dtype=np.int64)
    key = np.flatnonzero(data["data_is_key"])
    key_rows[data["data_sample"][key], data["data_channel"][key]] = key
    samples["sample_cameras"], samples["sample_lidar"] = key_rows[:, :LIDAR].copy(), key_rows[:, LIDAR].copy()
    yield "sensor_data", data
    del data, scene
    poses = Table(folder, EgoPose, "rotation translation")
    poses.require_poses()
    pose = poses.rows(data_table, "ego_pose_token")
    yield (
        "sensor_poses",
        {
            "ego_rotation": poses.columns.pop("rotation")[pose],
            "ego_translation": poses.columns.pop("translation")[pose],
        },
    )
    del data_table, poses, pose
    categories, attributes = Table(folder, Category, "name"), Table(folder, Attribute, "name")
    annotations = annotation_columns(folder, sample_table, samples["sample_timestamp_us"], categories, attributes)
    of_sample = annotations.pop("annotation_sample")
    samples["annotation_count"] = np.bincount(of_sample, minlength=len(sample_table))
    yield "samples", samples
    yield "annotations", annotations
    yield "categories", {"categories": categories["name"]}
    yield "attributes", {"attributes": attributes["name"]}


def _scenes_and_samples(folder: Path) -> tuple[Columns, Columns, Table]:
    """Samples by scene, then time; scenes without a sample (of a cut root) are left out."""
    scenes = Table(folder, Scene, "token_text name")
    samples = Table(folder, Sample, "token_text timestamp prev next scene_token")
    if not len(samples):
        raise UserError(f"{samples.path} holds no sample: there is nothing to index")
    scene = scenes.rows(samples, "scene_token")
    order = np.lexsort((samples["timestamp"], scene))
    samples.sort(order)
    kept, scene = np.unique(scene[order], return_inverse=True)
    before, after = samples.links(scene, np.arange(len(scene)), "scene")
    return (
        {
            "scene_name": scenes["name"].take(pa.array(kept)),
            "scene_token": scenes["token_text"].take(pa.array(kept)),
        },
        {
            "sample_token": samples["token_text"],
            "sample_timestamp_us": samples["timestamp"],
            "sample_scene": scene.astype(np.int64),
            "sample_prev": before,
            "sample_next": after,
        },
        samples,
    )


def _calibrations(folder: Path) -> tuple[Columns, Int[np.ndarray, "calibrations"], Table]:
    """Mounting and camera matrix of each sensor (identity for others than cameras); and its channel, -1 for those that
    an index leaves out (radar)."""
    table = Table(folder, CalibratedSensor, "sensor_token rotation translation camera_intrinsic")
    sensors = Table(folder, Sensor, "channel")
    number = [CHANNELS.index(channel) if channel in CHANNELS else -1 for channel in sensors["channel"].to_pylist()]
    channels = np.array(number, dtype=np.int64)[sensors.rows(table, "sensor_token")]
    table.require_poses()
    what = f"a sensor mounted {FARTHEST_MOUNTING:g} m or more from the car's origin"
    table.require(good_mountings(table["translation"]), "translation", what)
    is_camera = (channels >= 0) & (channels != LIDAR)
    good, matrices = ~is_camera, table["camera_intrinsic"][is_camera].tolist()
    good[is_camera] = [[len(row) for row in rows] == [3, 3, 3] for rows in matrices]
    table.require(good, "camera_intrinsic", "a camera matrix that is not 3x3")
    intrinsics = np.tile(np.eye(3), (len(table), 1, 1))
    intrinsics[is_camera] = np.array(matrices, dtype=np.float64).reshape(-1, 3, 3)
    table.require(good_matrices(intrinsics), "camera_intrinsic", f"a camera matrix that is not {MATRIX}")
    rotation = rotation_from_quaternion(torch.from_numpy(table["rotation"]))
    mounting = rigid(rotation, torch.from_numpy(table["translation"])).numpy()
    return {"calibration_ego_from_sensor": mounting, "calibration_intrinsics": intrinsics}, channels, table


def _sensor_data(
    folder: Path, samples: Table, calibrations: Table, channels: Int[np.ndarray, "calibrations"]
) -> tuple[Columns, Table]:
    """Records of the cameras and the LiDAR, by channel, then time; and their table, which keeps `ego_pose_token`."""
    left_out = set(calibrations.keys[channels < 0].tolist())
    table = Table(
        folder,
        SampleData,
        "sample_token ego_pose_token calibrated_sensor_token timestamp is_key_frame height width filename prev next",
        keep=lambda record: key_of(record.calibrated_sensor_token) not in left_out,
    )
    calibration = calibrations.rows(table, "calibrated_sensor_token")
    sample = samples.rows(table, "sample_token")
    order = np.lexsort((table["timestamp"], channels[calibration]))
    table.sort(order)
    calibration, sample = calibration[order], sample[order]
    before, after = table.links(channels[calibration], np.arange(len(table)), "sensor")
    outside = np.asarray(pc.match_substring_regex(table["filename"], _NOT_INSIDE))
    table.require(~outside, "filename", "a file name that is empty, absolute or leaves the root")
    columns = {
        "data_filename": table.columns.pop("filename"),
        "data_channel": channels[calibration],
        "data_calibration": calibration,
        "data_sample": sample,
        "data_timestamp_us": table.columns.pop("timestamp"),
        "data_prev": before,
        "data_next": after,
        "data_is_key": table.columns.pop("is_key_frame"),
        "data_size": np.stack([table.columns.pop("height"), table.columns.pop("width")], axis=1),
    }
    return columns, table


def _require_images(data: Columns, table: Table, intrinsics: Float[np.ndarray, "calibrations 3 3"]) -> None:
    """Check that images have a size, and their cameras' principal points lie inside them; see `Table.require`."""
    other, size = data["data_channel"] == LIDAR, data["data_size"]
    table.require(other | good_sizes(size), "height width", f"no image height and width between 1 and {LARGEST_SIDE}")
    inside = good_principal_points(intrinsics[data["data_calibration"]], size)
    what = "a calibrated sensor whose principal point lies outside the image"
    table.require(other | inside, "calibrated_sensor_token", what)


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
