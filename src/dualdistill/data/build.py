"""From the JSON tables of nuScenes to columns: links become positions, quaternions matrices, classes numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from dualdistill.data import tables
from dualdistill.data.tables import Positions, read_table
from dualdistill.errors import UserError
from dualdistill.geometry.transforms import rigid, rotation_from_quaternion
from dualdistill.structures import CAMERAS, CLASSES

CHANNELS = (*CAMERAS, "LIDAR_TOP")
"""Sensors an index keeps; `data_channel` counts in this order."""

LIDAR = CHANNELS.index("LIDAR_TOP")

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
"""Boxes of an instance further apart give no velocity (devkit `box_velocity`; twice that for a central difference)."""

Columns = dict[str, dict[str, np.ndarray | list[str]]]


def build_columns(folder: Path) -> Columns:
    """Every column of the index, by file name, from the version folder of a nuScenes root.

    Raises:
        UserError: for tables that are missing, cut off, or contradict each other.
    """
    tables.require_tables(folder)
    scenes, samples, sample_positions = _scenes_and_samples(folder)
    sensor_data = _sensor_data(folder, sample_positions)
    _attach_key_frames(samples, sensor_data)
    _end_chains_with_scenes(samples["sample_scene"], sensor_data)
    categories = read_table(folder, "category", tables.Named)
    attributes = read_table(folder, "attribute", tables.Named)
    annotations = _annotations(
        folder, sample_positions, samples["sample_timestamp_us"], categories, attributes
    )
    samples["annotation_count"] = np.bincount(
        annotations.pop("annotation_sample"), minlength=len(samples["sample_scene"])
    )
    return {
        "scenes": scenes,
        "samples": samples,
        "sensor_data": sensor_data,
        "annotations": annotations,
        "categories": {"categories": [category.name for category in categories]},
        "attributes": {"attributes": [attribute.name for attribute in attributes]},
    }


def _scenes_and_samples(folder: Path) -> tuple[dict, dict, Positions]:
    """Samples by scene, then time; scenes without a sample (of a cut root) are left out."""
    scenes = read_table(folder, "scene", tables.Named)
    samples = read_table(folder, "sample", tables.Sample)
    if not samples:
        raise UserError(f"{folder / 'sample.json'} holds no sample: there is nothing to index")
    scene_positions = Positions(folder, "scene", [scene.token for scene in scenes])
    scene_of = scene_positions.of(
        [s.scene_token for s in samples], [s.token for s in samples], "sample.scene_token"
    )
    order = sorted(range(len(samples)), key=lambda i: (scene_of[i], samples[i].timestamp))
    samples = [samples[i] for i in order]
    present, scene = np.unique([scene_of[i] for i in order], return_inverse=True)
    ends = np.cumsum(np.bincount(scene))
    tokens = [sample.token for sample in samples]
    positions = Positions(folder, "sample", tokens)
    return (
        {
            "scene_name": [scenes[i].name for i in present],
            "scene_token": [scenes[i].token for i in present],
            "scene_first_sample": np.concatenate([[0], ends[:-1]]),
            "scene_last_sample": ends - 1,
        },
        {
            "sample_token": tokens,
            "sample_timestamp_us": np.array([sample.timestamp for sample in samples], dtype=np.int64),
            "sample_scene": scene.astype(np.int64),
            "sample_prev": np.array(positions.of([s.prev for s in samples], tokens, "sample.prev")),
            "sample_next": np.array(positions.of([s.next for s in samples], tokens, "sample.next")),
        },
        positions,
    )


def _sensor_data(folder: Path, sample_positions: Positions) -> dict:
    """Records of the cameras and the LiDAR, by channel, then time."""
    sensors = read_table(folder, "sensor", tables.Sensor)
    calibrations = read_table(folder, "calibrated_sensor", tables.CalibratedSensor)
    records = read_table(folder, "sample_data", tables.SampleData)
    channel_of = _channels(folder, sensors, calibrations)
    calibration_positions = Positions(folder, "calibrated_sensor", [c.token for c in calibrations])
    calibration = calibration_positions.of(
        [r.calibrated_sensor_token for r in records],
        [r.token for r in records],
        "sample_data.calibrated_sensor_token",
    )
    channel = channel_of[calibration]
    timestamp = np.array([record.timestamp for record in records], dtype=np.int64)
    order = np.lexsort((timestamp, channel))
    order = order[channel[order] >= 0]
    records = [records[i] for i in order]
    row_calibration = np.array(calibration)[order]
    tokens = [record.token for record in records]
    rows = Positions(folder, "sample_data", tokens)
    poses = read_table(folder, "ego_pose", tables.EgoPose)
    pose_positions = Positions(folder, "ego_pose", [pose.token for pose in poses])
    pose = pose_positions.of([r.ego_pose_token for r in records], tokens, "sample_data.ego_pose_token")
    sample = sample_positions.of([r.sample_token for r in records], tokens, "sample_data.sample_token")
    previous = rows.of([r.prev for r in records], tokens, "sample_data.prev")
    following = rows.of([r.next for r in records], tokens, "sample_data.next")
    return {
        "data_filename": [record.filename for record in records],
        "data_channel": channel[order],
        "data_sample": np.array(sample, dtype=np.int64),
        "data_timestamp_us": timestamp[order],
        "data_prev": np.array(previous, dtype=np.int64),
        "data_next": np.array(following, dtype=np.int64),
        "data_is_key": np.array([record.is_key_frame for record in records], dtype=bool),
        "data_size": np.array([(r.height or 0, r.width or 0) for r in records], dtype=np.int32).reshape(
            -1, 2
        ),
        "ego_from_sensor": _matrices(folder, "calibrated_sensor", calibrations)[row_calibration],
        "global_from_ego": _matrices(folder, "ego_pose", [poses[i] for i in pose]),
        "intrinsics": _intrinsics(calibrations)[row_calibration],
    }


def _channels(
    folder: Path, sensors: list[tables.Sensor], calibrations: list[tables.CalibratedSensor]
) -> Int[np.ndarray, "calibrations"]:
    """Position in `CHANNELS` of the sensor of each calibration, -1 for those an index leaves out (radar)."""
    number = np.array(
        [CHANNELS.index(s.channel) if s.channel in CHANNELS else -1 for s in sensors], dtype=np.int64
    )
    positions = Positions(folder, "sensor", [sensor.token for sensor in sensors])
    sensor = positions.of(
        [c.sensor_token for c in calibrations],
        [c.token for c in calibrations],
        "calibrated_sensor.sensor_token",
    )
    return number[np.array(sensor, dtype=np.int64)]


def _intrinsics(calibrations: list[tables.CalibratedSensor]) -> Float[np.ndarray, "calibrations 3 3"]:
    """Camera matrices; identity for the LiDAR, which has none."""
    identity = np.eye(3).tolist()
    return np.array([c.camera_intrinsic or identity for c in calibrations], dtype=np.float64).reshape(
        -1, 3, 3
    )


def _matrices(
    folder: Path, name: str, records: Sequence[tables.CalibratedSensor | tables.EgoPose]
) -> Float[np.ndarray, "records 4 4"]:
    """Poses as 4x4 matrices.

    Raises:
        UserError: for a quaternion without a direction.
    """
    rotation = np.array([r.rotation for r in records], dtype=np.float64).reshape(-1, 4)
    translation = np.array([r.translation for r in records], dtype=np.float64).reshape(-1, 3)
    _require(np.linalg.norm(rotation, axis=1) > 0, folder, name, records, "a rotation of length zero")
    return rigid(rotation_from_quaternion(torch.from_numpy(rotation)), torch.from_numpy(translation)).numpy()


def _require(good: np.ndarray, folder: Path, name: str, records: Sequence, what: str) -> None:
    """Raise a UserError that names the first record which is not good."""
    if not good.all():
        position = int(np.flatnonzero(~good)[0])
        raise UserError(
            f"{folder / f'{name}.json'}: record {records[position].token!r} has {what}; correct or remove the record"
        )


def _attach_key_frames(samples: dict, sensor_data: dict) -> None:
    """Note with each sample the rows of its key frame's sensors, -1 where one is missing."""
    rows = np.full((len(samples["sample_scene"]), len(CHANNELS)), -1, dtype=np.int64)
    key = np.flatnonzero(sensor_data["data_is_key"])
    rows[sensor_data["data_sample"][key], sensor_data["data_channel"][key]] = key
    samples["sample_cameras"], samples["sample_lidar"] = rows[:, :LIDAR].copy(), rows[:, LIDAR].copy()


def _end_chains_with_scenes(sample_scene: Int[np.ndarray, "samples"], sensor_data: dict) -> None:
    """Clear links to records of another scene, so that nobody who follows a chain has to look."""
    scene = sample_scene[sensor_data["data_sample"]]
    for name in ("data_prev", "data_next"):
        link = sensor_data[name]
        sensor_data[name] = np.where(scene[link] == scene, link, -1)


def _annotations(
    folder: Path,
    sample_positions: Positions,
    sample_timestamp_us: Int[np.ndarray, "samples"],
    categories: list[tables.Named],
    attributes: list[tables.Named],
) -> dict:
    """Boxes by sample, in the order of the table within one."""
    records = read_table(folder, "sample_annotation", tables.Annotation)
    sample = sample_positions.of(
        [r.sample_token for r in records], [r.token for r in records], "sample_annotation.sample_token"
    )
    order = np.argsort(np.array(sample, dtype=np.int64), kind="stable")
    records = [records[i] for i in order]
    sample = np.array(sample, dtype=np.int64)[order]
    tokens = [record.token for record in records]

    center = np.array([r.translation for r in records], dtype=np.float64).reshape(-1, 3)
    width_length_height = np.array([r.size for r in records], dtype=np.float64).reshape(-1, 3)
    rotation = np.array([r.rotation for r in records], dtype=np.float64).reshape(-1, 4)
    numbers = np.concatenate([center, width_length_height, rotation], axis=1)
    _require(
        np.isfinite(numbers).all(axis=1), folder, "sample_annotation", records, "a number that is not finite"
    )
    _require(
        (width_length_height > 0).all(axis=1),
        folder,
        "sample_annotation",
        records,
        "a size that is not positive",
    )
    _require(
        np.linalg.norm(rotation, axis=1) > 0,
        folder,
        "sample_annotation",
        records,
        "a rotation of length zero",
    )

    def links(tokens_to: list[str], name: str, table: Sequence, field: str) -> np.ndarray:
        positions = Positions(folder, name, [record.token for record in table])
        return np.array(positions.of(tokens_to, tokens, f"sample_annotation.{field}"), dtype=np.int64)

    instances = read_table(folder, "instance", tables.Instance)
    instance = links([r.instance_token for r in records], "instance", instances, "instance_token")
    category_positions = Positions(folder, "category", [category.token for category in categories])
    category_of_instance = np.array(
        category_positions.of(
            [i.category_token for i in instances], [i.token for i in instances], "instance.category_token"
        ),
        dtype=np.int64,
    )
    category = category_of_instance[instance]
    class_of_category = np.array([_class_index(c.name) for c in categories], dtype=np.int64)
    visibilities = sorted(read_table(folder, "visibility", tables.Visibility), key=lambda v: v.level)
    first_attribute = [r.attribute_tokens[0] if r.attribute_tokens else "" for r in records]
    previous = links([r.prev for r in records], "sample_annotation", records, "prev")
    following = links([r.next for r in records], "sample_annotation", records, "next")
    return {
        "annotation_sample": sample,
        "annotation_token": tokens,
        "annotation_instance": instance,
        "annotation_center": center,
        "annotation_size": width_length_height[:, [1, 0, 2]],
        "annotation_rotation": rotation,
        "annotation_velocity": box_velocities(
            center, sample_timestamp_us[sample] * 1e-6, previous, following
        ),
        "annotation_category": category,
        "annotation_class": class_of_category[category],
        "annotation_attribute": links(first_attribute, "attribute", attributes, "attribute_tokens"),
        "annotation_visibility": 1
        + links([r.visibility_token for r in records], "visibility", visibilities, "visibility_token"),
        "annotation_lidar_points": np.array([r.num_lidar_pts for r in records], dtype=np.int64),
        "annotation_radar_points": np.array([r.num_radar_pts for r in records], dtype=np.int64),
    }


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

    Central difference where the instance has a box before and after, one-sided where it has one of them: the rule
    of the devkit's `box_velocity`.

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
