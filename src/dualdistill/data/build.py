"""From JSON tables to columns: links become positions, quaternions matrices, classes numbers."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from dualdistill.data import tables
from dualdistill.data.build_annotations import annotation_columns
from dualdistill.data.table_columns import read_table_columns
from dualdistill.data.tables import read_table, require_all
from dualdistill.data.tokens import Positions, Tokens, as_texts
from dualdistill.errors import UserError
from dualdistill.geometry.transforms import rigid, rotation_from_quaternion
from dualdistill.structures import CAMERAS

CHANNELS = (*CAMERAS, "LIDAR_TOP")
"""Sensors an index keeps; `data_channel` counts in this order."""

LIDAR = CHANNELS.index("LIDAR_TOP")

Columns = Mapping[str, np.ndarray | list[str]]

BLOCK = 1 << 14
"""Matrices made at once: what they are made from stays in a processor's cache."""


def build_columns(folder: Path) -> Iterator[tuple[str, Columns]]:
    """Columns of the index by file name, from the version folder of a nuScenes root; one file after another, so that
    those written need not be held.

    Raises:
        UserError: for tables that are missing, cut off, or contradict each other.
    """
    tables.require_tables(folder)
    scenes, samples, sample_positions = _scenes_and_samples(folder)
    yield "scenes", scenes
    sensor_data = _sensor_data(folder, sample_positions)
    _attach_key_frames(samples, sensor_data)
    _end_chains_with_scenes(samples["sample_scene"], sensor_data)
    yield "sensor_data", sensor_data
    del sensor_data
    categories = read_table(folder, "category", tables.Named)
    attributes = read_table(folder, "attribute", tables.Named)
    annotations = annotation_columns(folder, sample_positions, samples["sample_timestamp_us"], categories, attributes)
    samples["annotation_count"] = np.bincount(
        annotations.pop("annotation_sample"), minlength=len(samples["sample_scene"])
    )
    yield "samples", samples
    yield "annotations", annotations
    yield "categories", {"categories": [category.name for category in categories]}
    yield "attributes", {"attributes": [attribute.name for attribute in attributes]}


def _scenes_and_samples(folder: Path) -> tuple[Columns, dict[str, np.ndarray], Positions]:
    """Samples by scene, then time; scenes without a sample (of a cut root) are left out."""
    scenes = read_table(folder, "scene", tables.Named)
    samples = read_table_columns(folder, "sample", tables.Sample)
    if not len(samples["token"]):
        raise UserError(f"{folder / 'sample.json'} holds no sample: there is nothing to index")
    scene_positions = Positions(folder, "scene", as_texts(scene.token for scene in scenes))
    scene_of = scene_positions.of(samples["scene_token"], samples["token"], "sample.scene_token")
    order = np.lexsort((samples["timestamp"], scene_of))
    samples = {name: values[order] for name, values in samples.items()}
    present, scene = np.unique(scene_of[order], return_inverse=True)
    ends = np.cumsum(np.bincount(scene))
    tokens = samples["token"]
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
            "sample_timestamp_us": samples["timestamp"],
            "sample_scene": scene.astype(np.int64),
            "sample_prev": positions.of(samples["prev"], tokens, "sample.prev", may_be_empty=True),
            "sample_next": positions.of(samples["next"], tokens, "sample.next", may_be_empty=True),
        },
        positions,
    )


def _sensor_data(folder: Path, sample_positions: Positions) -> dict[str, np.ndarray]:
    """Records of the cameras and the LiDAR, by channel, then time."""
    pose_positions, rotation, translation = _ego_poses(folder)
    sensors = read_table(folder, "sensor", tables.Sensor)
    calibrations = read_table(folder, "calibrated_sensor", tables.CalibratedSensor)
    records = _by_channel(folder, _channels(folder, sensors, calibrations), calibrations)
    tokens = records["token"]
    rows = Positions(folder, "sample_data", tokens)

    def links(positions: Positions, field: str, *, may_be_empty: bool = False) -> Int[np.ndarray, "data"]:
        return positions.of(records.pop(field), tokens, f"sample_data.{field}", may_be_empty=may_be_empty)

    pose = links(pose_positions, "ego_pose_token")
    calibration = records["calibration"]
    return {
        "data_filename": records["filename"],
        "data_channel": records["channel"],
        "data_sample": links(sample_positions, "sample_token"),
        "data_timestamp_us": records["timestamp"],
        "data_prev": links(rows, "prev", may_be_empty=True),
        "data_next": links(rows, "next", may_be_empty=True),
        "data_is_key": records["is_key_frame"],
        "data_size": np.stack([records["height"], records["width"]], axis=1).astype(np.int32),
        "ego_from_sensor": _calibrated(folder, calibrations)[calibration],
        "global_from_ego": _matrices(rotation[pose], translation[pose]),
        "intrinsics": _intrinsics(calibrations)[calibration],
    }


def _ego_poses(folder: Path) -> tuple[Positions, Float[np.ndarray, "poses 4"], Float[np.ndarray, "poses 3"]]:
    """Where each token stands in the table, and the quaternion and the place of each pose."""
    poses = read_table_columns(folder, "ego_pose", tables.EgoPose)
    positions = Positions(folder, "ego_pose", poses["token"])
    _require_directions(folder, "ego_pose", poses["token"], poses["rotation"])
    return positions, poses["rotation"], poses["translation"]


def _by_channel(
    folder: Path, channels: Int[np.ndarray, "calibrations"], calibrations: list[tables.CalibratedSensor]
) -> dict[str, np.ndarray]:
    """Sensor records an index keeps, in its order, with the calibration and the channel of each.

    Args:
        channels: Of each calibration, see `_channels`.
    """
    positions = Positions(folder, "calibrated_sensor", as_texts(c.token for c in calibrations))

    def kept(records: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tokens = records.pop("calibrated_sensor_token")
        records["calibration"] = positions.of(tokens, records["token"], "sample_data.calibrated_sensor_token")
        records["channel"] = channels[records["calibration"]]
        rows = np.flatnonzero(records["channel"] >= 0)
        return {name: values[rows] for name, values in records.items()}

    records = read_table_columns(folder, "sample_data", tables.SampleData, kept)
    order = np.lexsort((records["timestamp"], records["channel"]))
    return {name: records.pop(name)[order] for name in list(records)}


def _channels(
    folder: Path, sensors: list[tables.Sensor], calibrations: list[tables.CalibratedSensor]
) -> Int[np.ndarray, "calibrations"]:
    """Position in `CHANNELS` of the sensor of each calibration, -1 for those an index leaves out (radar)."""
    number = np.array([CHANNELS.index(s.channel) if s.channel in CHANNELS else -1 for s in sensors], dtype=np.int64)
    sensor = Positions(folder, "sensor", as_texts(sensor.token for sensor in sensors)).of(
        as_texts(c.sensor_token for c in calibrations),
        as_texts(c.token for c in calibrations),
        "calibrated_sensor.sensor_token",
    )
    return number[sensor]


def _intrinsics(calibrations: list[tables.CalibratedSensor]) -> Float[np.ndarray, "calibrations 3 3"]:
    """Camera matrices; identity for the LiDAR, which has none."""
    identity = np.eye(3).tolist()
    return np.array([c.camera_intrinsic or identity for c in calibrations], dtype=np.float64).reshape(-1, 3, 3)


def _calibrated(folder: Path, calibrations: list[tables.CalibratedSensor]) -> Float[np.ndarray, "calibrations 4 4"]:
    """Ego from sensor."""
    rotation = np.array([c.rotation for c in calibrations], dtype=np.float64).reshape(-1, 4)
    translation = np.array([c.translation for c in calibrations], dtype=np.float64).reshape(-1, 3)
    _require_directions(folder, "calibrated_sensor", as_texts(c.token for c in calibrations), rotation)
    return _matrices(rotation, translation)


def _require_directions(folder: Path, name: str, tokens: Tokens, rotation: Float[np.ndarray, "records 4"]) -> None:
    """See that every quaternion has a direction.

    Raises:
        UserError: naming the first record without.
    """
    good = np.asarray(np.linalg.norm(rotation, axis=1) > 0)
    require_all(good, folder, name, tokens, "a rotation of length zero")


def _matrices(
    rotation: Float[np.ndarray, "records 4"], translation: Float[np.ndarray, "records 3"]
) -> Float[np.ndarray, "records 4 4"]:
    """Poses as 4x4 matrices."""
    matrices = np.empty((len(rotation), 4, 4))
    for start in range(0, len(rotation), BLOCK):
        block = slice(start, start + BLOCK)
        turned = rotation_from_quaternion(torch.from_numpy(rotation[block]))
        matrices[block] = rigid(turned, torch.from_numpy(translation[block])).numpy()
    return matrices


def _attach_key_frames(samples: dict[str, np.ndarray], sensor_data: dict[str, np.ndarray]) -> None:
    """Note with each sample the rows of its key frame's sensors, -1 where one is missing."""
    rows = np.full((len(samples["sample_scene"]), len(CHANNELS)), -1, dtype=np.int64)
    key = np.flatnonzero(sensor_data["data_is_key"])
    rows[sensor_data["data_sample"][key], sensor_data["data_channel"][key]] = key
    samples["sample_cameras"], samples["sample_lidar"] = rows[:, :LIDAR].copy(), rows[:, LIDAR].copy()


def _end_chains_with_scenes(sample_scene: Int[np.ndarray, "samples"], sensor_data: dict[str, np.ndarray]) -> None:
    """Clear links to records of another scene, so that nobody who follows a chain has to look."""
    scene = sample_scene[sensor_data["data_sample"]]
    for name in ("data_prev", "data_next"):
        link = sensor_data[name]
        sensor_data[name] = np.where(scene[link] == scene, link, -1)
