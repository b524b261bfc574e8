"""From JSON tables to columns: links become positions, quaternions matrices, classes numbers."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from dualdistill.data import tables
from dualdistill.data.ahead import Ahead, cut_ahead
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


def build_columns(folder: Path, scratch: Path) -> Iterator[tuple[str, Columns]]:
    """Columns of the index by file name, from the version folder of a nuScenes root; one file after another, so that
    those written need not be held.

    Args:
        scratch: Folder for what can go when all is done.

    Raises:
        UserError: for tables that are missing, cut off, or contradict each other.
    """
    tables.require_tables(folder)
    with cut_ahead(folder, {"ego_pose": tables.EgoPose, "sample_annotation": tables.Annotation}, scratch) as ahead:
        yield from _columns(folder, ahead)


def _columns(folder: Path, ahead: Ahead) -> Iterator[tuple[str, Columns]]:
    scenes, samples, sample_positions = _scenes_and_samples(folder)
    yield "scenes", scenes
    calibrations = read_table(folder, "calibrated_sensor", tables.CalibratedSensor)
    records = _sensor_records(folder, calibrations, sample_positions)
    sensor_data = _sensor_data(records)
    _attach_key_frames(samples, sensor_data)
    _end_chains_with_scenes(samples["sample_scene"], sensor_data)
    yield "sensor_data", sensor_data
    del sensor_data
    yield "sensor_poses", {"global_from_ego": _ego_poses(folder, records, ahead)}
    yield "sensor_calibrations", _of_sensors(folder, calibrations, records.pop("calibration"))
    del records
    categories = read_table(folder, "category", tables.Named)
    attributes = read_table(folder, "attribute", tables.Named)
    records = ahead.read("sample_annotation")
    annotations = annotation_columns(
        folder, records, sample_positions, samples["sample_timestamp_us"], categories, attributes
    )
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


def _sensor_records(
    folder: Path, calibrations: list[tables.CalibratedSensor], sample_positions: Positions
) -> dict[str, np.ndarray]:
    """What the table says of the cameras and the LiDAR, by channel, then time, links as positions but for the pose."""
    sensors = read_table(folder, "sensor", tables.Sensor)
    records = _by_channel(folder, _channels(folder, sensors, calibrations), calibrations, sample_positions)
    _link(folder, records)
    return records


def _sensor_data(records: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns of the index out of records, without those for poses and calibrations."""
    return {
        "data_filename": records.pop("filename"),
        "data_channel": records.pop("channel").astype(np.int64),
        "data_sample": records.pop("sample").astype(np.int64),
        "data_timestamp_us": records.pop("timestamp"),
        "data_prev": records.pop("prev"),
        "data_next": records.pop("next"),
        "data_is_key": records.pop("is_key_frame"),
        "data_size": np.stack([records.pop("height"), records.pop("width")], axis=1),
    }


def _of_sensors(
    folder: Path, calibrations: list[tables.CalibratedSensor], calibration: Int[np.ndarray, "data"]
) -> dict[str, np.ndarray]:
    """Where the sensor of each record sits in the car, and its camera matrix."""
    return {
        "ego_from_sensor": _calibrated(folder, calibrations)[calibration],
        "intrinsics": _intrinsics(calibrations)[calibration],
    }


def _link(folder: Path, records: dict[str, np.ndarray]) -> None:
    """Positions in place of the tokens of the records before and after, which most often are the neighbours."""
    tokens = records["token"]
    positions, rows = Positions(folder, "sample_data", tokens), np.arange(len(tokens))
    for field, step in (("prev", -1), ("next", 1)):
        linked = records.pop(field)
        records[field] = positions.of(linked, tokens, f"sample_data.{field}", may_be_empty=True, guess=rows + step)


def _ego_poses(folder: Path, records: dict[str, np.ndarray], ahead: Ahead) -> Float[np.ndarray, "data 4 4"]:
    """The car in the world at the moment of each record."""
    poses = ahead.read("ego_pose")
    rotation, translation = poses["rotation"], poses["translation"]
    _require_directions(folder, "ego_pose", poses["token"], rotation)
    positions = Positions(folder, "ego_pose", poses.pop("token"))
    linked, row = records.pop("ego_pose_token"), records.pop("row")  # both tables tend to have one order
    pose = positions.of(linked, records["token"], "sample_data.ego_pose_token", guess=row)
    return _matrices(rotation, translation, pose)


def _by_channel(
    folder: Path,
    channels: Int[np.ndarray, "calibrations"],
    calibrations: list[tables.CalibratedSensor],
    sample_positions: Positions,
) -> dict[str, np.ndarray]:
    """Sensor records an index keeps, in its order, with the row in the table, the calibration, the channel and the
    sample of each.

    Args:
        channels: Of each calibration, see `_channels`.
    """
    positions = Positions(folder, "calibrated_sensor", as_texts(c.token for c in calibrations))

    def kept(records: dict[str, np.ndarray], before: int) -> dict[str, np.ndarray]:
        calibrated = records.pop("calibrated_sensor_token")
        calibration = positions.of(calibrated, records["token"], "sample_data.calibrated_sensor_token")
        rows = np.flatnonzero(channels[calibration] >= 0)
        if len(rows) < len(calibration):
            calibration, records = calibration[rows], {name: values[rows] for name, values in records.items()}
        records["calibration"] = calibration.astype(np.int32)
        records["channel"] = channels[calibration].astype(np.int8)
        records["row"] = (before + rows).astype(np.int32)
        samples = records.pop("sample_token")
        found = sample_positions.of(samples, records["token"], "sample_data.sample_token")
        records["sample"] = found.astype(np.int32)
        for side in ("height", "width"):
            records[side] = records[side].astype(np.int32)
        return records

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
    return _matrices(rotation, translation, np.arange(len(calibrations)))


def _require_directions(folder: Path, name: str, tokens: Tokens, rotation: Float[np.ndarray, "records 4"]) -> None:
    """See that every quaternion has a direction.

    Raises:
        UserError: naming the first record without.
    """
    good = np.asarray(np.einsum("ij,ij->i", rotation, rotation) > 0)
    require_all(good, folder, name, tokens, "a rotation of length zero")


def _matrices(
    rotation: Float[np.ndarray, "poses 4"], translation: Float[np.ndarray, "poses 3"], pose: Int[np.ndarray, "records"]
) -> Float[np.ndarray, "records 4 4"]:
    """The pose of each record as a 4x4 matrix."""
    matrices = np.empty((len(pose), 4, 4))
    for start in range(0, len(pose), BLOCK):
        block = pose[start : start + BLOCK]
        turned = rotation_from_quaternion(torch.from_numpy(rotation[block]))
        matrices[start : start + BLOCK] = rigid(turned, torch.from_numpy(translation[block])).numpy()
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
