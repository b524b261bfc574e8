"""From JSON tables to columns: links become positions, classes numbers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Int

from dualdistill.data import plausible, tables
from dualdistill.data.read_tables import Columns, Table, key_of
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
    samples, scenes, of_samples = _samples(folder)
    yield "scenes", scenes
    calibrations = _calibrations(folder)
    yield "calibrations", {f"calibration_{name}": calibrations[name] for name in ("ego_from_sensor", "intrinsics")}
    records, data = _sensor_data(folder, samples, calibrations)
    scene = of_samples["sample_scene"][data["data_sample"]]
    for name in ("data_prev", "data_next"):  # chains end with their scene, so that following one needs no check
        data[name] = np.where(scene[data[name]] == scene, data[name], -1)
    key_rows = np.full((len(samples), len(CHANNELS)), -1, dtype=np.int64)
    key = np.flatnonzero(data["data_is_key"])
    key_rows[data["data_sample"][key], data["data_channel"][key]] = key
    of_samples |= {"sample_cameras": key_rows[:, :LIDAR].copy(), "sample_lidar": key_rows[:, LIDAR].copy()}
    yield "sensor_data", data
    del data, scene
    poses = Table(folder, tables.EgoPose, "rotation translation")
    poses.require_poses()
    pose = poses.rows(records, "ego_pose_token")
    yield "sensor_poses", {f"ego_{name}": poses.columns.pop(name)[pose] for name in ("rotation", "translation")}
    del records, poses, pose
    categories, attributes = Table(folder, tables.Category, "name"), Table(folder, tables.Attribute, "name")
    annotations = _annotations(folder, samples, categories, attributes)
    of_samples["annotation_count"] = np.bincount(annotations.pop("annotation_sample"), minlength=len(samples))
    yield "samples", of_samples
    yield "annotations", annotations
    yield "categories", {"categories": categories["name"]}
    yield "attributes", {"attributes": attributes["name"]}


def _samples(folder: Path) -> tuple[Table, Columns, Columns]:
    """Samples by scene, then time; and the columns of scenes and samples. Scenes without a sample (of a cut root) are
    left out."""
    scenes = Table(folder, tables.Scene, "token_text name")
    samples = Table(folder, tables.Sample, "token_text timestamp prev next scene_token")
    if not len(samples):
        raise UserError(f"{samples.path} holds no sample: there is nothing to index")
    scene = scenes.rows(samples, "scene_token")
    order = np.lexsort((samples["timestamp"], scene))
    samples.sort(order)
    kept, scene = np.unique(scene[order], return_inverse=True)
    before, after = samples.links(scene, np.arange(len(scene)), "scene")
    scenes.sort(kept)
    of_samples = {
        "sample_token": samples["token_text"],
        "sample_timestamp_us": samples["timestamp"],
        "sample_scene": scene.astype(np.int64),
        "sample_prev": before,
        "sample_next": after,
    }
    return samples, {"scene_name": scenes["name"], "scene_token": scenes["token_text"]}, of_samples


def _calibrations(folder: Path) -> Table:
    """Mounting and camera matrix of each sensor (identity for others than cameras); and its channel, -1 for those that
    an index leaves out (radar)."""
    table = Table(folder, tables.CalibratedSensor, "sensor_token rotation translation camera_intrinsic")
    sensors = Table(folder, tables.Sensor, "channel")
    number = [CHANNELS.index(channel) if channel in CHANNELS else -1 for channel in sensors["channel"].to_pylist()]
    channels = np.array(number, dtype=np.int64)[sensors.rows(table, "sensor_token")]
    table.require_poses()
    what = f"a sensor mounted {plausible.FARTHEST_MOUNTING:g} m or more from the car's origin"
    table.require(plausible.good_mountings(table["translation"]), "translation", what)
    is_camera = (channels >= 0) & (channels != LIDAR)
    good, matrices = ~is_camera, table["camera_intrinsic"][is_camera].tolist()
    good[is_camera] = [[len(row) for row in rows] == [3, 3, 3] for rows in matrices]
    table.require(good, "camera_intrinsic", "a camera matrix that is not 3x3")
    intrinsics = np.tile(np.eye(3), (len(table), 1, 1))
    intrinsics[is_camera] = np.array(matrices, dtype=np.float64).reshape(-1, 3, 3)
    what = f"a camera matrix that is not {plausible.MATRIX}"
    table.require(plausible.good_matrices(intrinsics), "camera_intrinsic", what)
    rotation = rotation_from_quaternion(torch.from_numpy(table["rotation"]))
    mounting = rigid(rotation, torch.from_numpy(table["translation"])).numpy()
    table.columns |= {"channel": channels, "ego_from_sensor": mounting, "intrinsics": intrinsics}
    return table


def _sensor_data(folder: Path, samples: Table, calibrations: Table) -> tuple[Table, Columns]:
    """Records of the cameras and the LiDAR, by channel, then time: their table, which keeps `ego_pose_token`, and the
    columns of an index."""
    left_out = set(calibrations.keys[calibrations["channel"] < 0].tolist())
    table = Table(
        folder,
        tables.SampleData,
        "sample_token ego_pose_token calibrated_sensor_token timestamp is_key_frame height width filename prev next",
        keep=lambda record: key_of(record.calibrated_sensor_token) not in left_out,
    )
    calibration = calibrations.rows(table, "calibrated_sensor_token")
    sample = samples.rows(table, "sample_token")
    order = np.lexsort((table["timestamp"], calibrations["channel"][calibration]))
    table.sort(order)
    calibration, sample = calibration[order], sample[order]
    channel = calibrations["channel"][calibration]
    before, after = table.links(channel, np.arange(len(table)), "sensor")
    outside = np.asarray(pc.match_substring_regex(table["filename"], _NOT_INSIDE))
    table.require(~outside, "filename", "a file name that is empty, absolute or leaves the root")
    size = np.stack([table.columns.pop("height"), table.columns.pop("width")], axis=1)
    what = f"no image height and width between 1 and {plausible.LARGEST_SIDE}"
    table.require((channel == LIDAR) | plausible.good_sizes(size), "height width", what)
    inside = plausible.good_principal_points(calibrations["intrinsics"][calibration], size)
    what = "a calibrated sensor whose principal point lies outside the image"
    table.require((channel == LIDAR) | inside, "calibrated_sensor_token", what)
    return table, {
        "data_filename": table.columns.pop("filename"),
        "data_channel": channel,
        "data_calibration": calibration,
        "data_sample": sample,
        "data_timestamp_us": table.columns.pop("timestamp"),
        "data_prev": before,
        "data_next": after,
        "data_is_key": table.columns.pop("is_key_frame"),
        "data_size": size,
    }


def _annotations(folder: Path, samples: Table, categories: Table, attributes: Table) -> Columns:
    """Boxes by sample, in the order of the table within one.

    Raises:
        UserError: for a box that is degenerate, or a link that leads nowhere or the wrong way.
    """
    boxes = Table(
        folder,
        tables.SampleAnnotation,
        "token_text sample_token instance_token visibility_token attribute_tokens translation rotation size prev next "
        "num_lidar_pts num_radar_pts",
    )
    sample = samples.rows(boxes, "sample_token")
    order = np.argsort(sample, kind="stable")
    boxes.sort(order)
    sample = sample[order]
    instances = Table(folder, tables.Instance, "category_token")
    instance = instances.rows(boxes, "instance_token")
    before, after = boxes.links(instance, sample, "instance")
    visibilities = Table(folder, tables.Visibility, "level")
    visibilities.sort(np.argsort(visibilities["level"].to_numpy(zero_copy_only=False)))
    category = categories.rows(instances, "category_token")[instance]
    classes = map(CLASS_OF_CATEGORY.get, categories["name"].to_pylist())
    class_of_category = np.array([-1 if name is None else CLASSES.index(name) for name in classes], dtype=np.int64)
    boxes.require_poses()
    center, size = boxes["translation"], boxes["size"][:, [1, 0, 2]]
    boxes.require((size > 0).all(axis=1), "size", "a size that is not positive")
    boxes.require((size < plausible.FARTHEST).all(axis=1), "size", f"a size of {plausible.FARTHEST:g} m or more")
    return {
        "annotation_sample": sample,
        "annotation_token": boxes["token_text"],
        "annotation_center": center,
        "annotation_size": size,
        "annotation_rotation": boxes["rotation"],
        "annotation_velocity": box_velocities(center, samples["timestamp"][sample] * 1e-6, before, after),
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
    rule of the devkit's `box_velocity`. `previous` and `following` are their rows, -1 for none; `center` is global.
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
