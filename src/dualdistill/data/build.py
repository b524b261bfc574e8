"""From JSON tables to columns: links become positions, quaternions matrices, classes numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from dualdistill.data import tables
from dualdistill.data.build_annotations import annotation_columns
from dualdistill.data.tables import Positions, read_table, require_all
from dualdistill.errors import UserError
from dualdistill.geometry.transforms import rigid, rotation_from_quaternion
from dualdistill.structures import CAMERAS

CHANNELS = (*CAMERAS, "LIDAR_TOP")
"""Sensors an index keeps; `data_channel` counts in this order."""

LIDAR = CHANNELS.index("LIDAR_TOP")

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
    annotations = annotation_columns(folder, sample_positions, samples["sample_timestamp_us"], categories, attributes)
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
    scene_of = scene_positions.of([s.scene_token for s in samples], [s.token for s in samples], "sample.scene_token")
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
            "sample_prev": np.array(positions.of([s.prev for s in samples], tokens, "sample.prev", may_be_empty=True)),
            "sample_next": np.array(positions.of([s.next for s in samples], tokens, "sample.next", may_be_empty=True)),
        },
        positions,
    )


def _sensor_data(folder: Path, sample_positions: Positions) -> dict:
    """Records of the cameras and the LiDAR, by channel, then time."""
    # trainval has 2.6 million poses and as many records: the poses are arrays before the records come in.
    pose_positions, global_from_ego = _ego_poses(folder)
    sensors = read_table(folder, "sensor", tables.Sensor)
    calibrations = read_table(folder, "calibrated_sensor", tables.CalibratedSensor)
    records, calibration, channel = _by_channel(folder, sensors, calibrations)
    tokens = [record.token for record in records]
    rows = Positions(folder, "sample_data", tokens)

    def links(positions: Positions, field: str, targets: list[str], *, may_be_empty: bool = False) -> np.ndarray:
        found = positions.of(targets, tokens, f"sample_data.{field}", may_be_empty=may_be_empty)
        return np.array(found, dtype=np.int64)

    pose = links(pose_positions, "ego_pose_token", [r.ego_pose_token for r in records])
    size = np.array([(r.height or 0, r.width or 0) for r in records], dtype=np.int32)
    return {
        "data_filename": [record.filename for record in records],
        "data_channel": channel,
        "data_sample": links(sample_positions, "sample_token", [r.sample_token for r in records]),
        "data_timestamp_us": np.array([record.timestamp for record in records], dtype=np.int64),
        "data_prev": links(rows, "prev", [r.prev for r in records], may_be_empty=True),
        "data_next": links(rows, "next", [r.next for r in records], may_be_empty=True),
        "data_is_key": np.array([record.is_key_frame for record in records], dtype=bool),
        "data_size": size.reshape(-1, 2),
        "ego_from_sensor": _matrices(folder, "calibrated_sensor", calibrations)[calibration],
        "global_from_ego": global_from_ego[pose],
        "intrinsics": _intrinsics(calibrations)[calibration],
    }


def _ego_poses(folder: Path) -> tuple[Positions, Float[np.ndarray, "poses 4 4"]]:
    """All poses of the table, and where each token stands."""
    poses = read_table(folder, "ego_pose", tables.EgoPose)
    return Positions(folder, "ego_pose", [pose.token for pose in poses]), _matrices(folder, "ego_pose", poses)


def _by_channel(
    folder: Path, sensors: list[tables.Sensor], calibrations: list[tables.CalibratedSensor]
) -> tuple[list[tables.SampleData], Int[np.ndarray, "data"], Int[np.ndarray, "data"]]:
    """Sensor records an index keeps, in its order, with the calibration and the channel of each."""
    records = read_table(folder, "sample_data", tables.SampleData)
    positions = Positions(folder, "calibrated_sensor", [c.token for c in calibrations])
    found = positions.of(
        [r.calibrated_sensor_token for r in records],
        [r.token for r in records],
        "sample_data.calibrated_sensor_token",
    )
    calibration = np.array(found, dtype=np.int64)
    channel = _channels(folder, sensors, calibrations)[calibration]
    order = np.lexsort((np.array([record.timestamp for record in records], dtype=np.int64), channel))
    order = order[channel[order] >= 0]
    return [records[i] for i in order], calibration[order], channel[order]


def _channels(
    folder: Path, sensors: list[tables.Sensor], calibrations: list[tables.CalibratedSensor]
) -> Int[np.ndarray, "calibrations"]:
    """Position in `CHANNELS` of the sensor of each calibration, -1 for those an index leaves out (radar)."""
    number = np.array([CHANNELS.index(s.channel) if s.channel in CHANNELS else -1 for s in sensors], dtype=np.int64)
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
    return np.array([c.camera_intrinsic or identity for c in calibrations], dtype=np.float64).reshape(-1, 3, 3)


def _matrices(
    folder: Path, name: str, records: Sequence[tables.CalibratedSensor | tables.EgoPose]
) -> Float[np.ndarray, "records 4 4"]:
    """Poses as 4x4 matrices.

    Raises:
        UserError: for a quaternion without a direction.
    """
    rotation = np.array([r.rotation for r in records], dtype=np.float64).reshape(-1, 4)
    translation = np.array([r.translation for r in records], dtype=np.float64).reshape(-1, 3)
    require_all(np.linalg.norm(rotation, axis=1) > 0, folder, name, records, "a rotation of length zero")
    return rigid(rotation_from_quaternion(torch.from_numpy(rotation)), torch.from_numpy(translation)).numpy()


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
