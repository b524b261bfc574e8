"""From JSON tables to columns: links become positions, classes numbers."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from dualdistill.data import tables
from dualdistill.data.ahead import Ahead, cut_ahead
from dualdistill.data.build_annotations import annotation_columns
from dualdistill.data.line_layout import Choice, Columns
from dualdistill.data.table_columns import in_order, read_table_columns
from dualdistill.data.tables import read_table, require_all
from dualdistill.data.tokens import Positions, Tokens, as_texts
from dualdistill.errors import UserError
from dualdistill.geometry.transforms import rigid, rotation_from_quaternion
from dualdistill.structures import CAMERAS

CHANNELS = (*CAMERAS, "LIDAR_TOP")
"""Sensors an index keeps; `data_channel` counts in this order."""

LIDAR = CHANNELS.index("LIDAR_TOP")

File = tuple[str, Mapping[str, np.ndarray | list[str]]]
"""Name and columns of one file of an index."""


def build_columns(folder: Path, scratch: Path) -> Iterator[File]:
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


def _columns(folder: Path, ahead: Ahead) -> Iterator[File]:
    scenes, samples, sample_positions = _scenes_and_samples(folder)
    yield "scenes", scenes
    calibrations = read_table(folder, "calibrated_sensor", tables.CalibratedSensor)
    yield "calibrations", _calibration_columns(folder, calibrations)
    records = _sensor_records(folder, calibrations, sample_positions)
    sensor_data = _sensor_data(records)
    _attach_key_frames(samples, sensor_data)
    _end_chains_with_scenes(samples["sample_scene"], sensor_data)
    yield "sensor_data", sensor_data
    del sensor_data
    yield "sensor_poses", _ego_poses(folder, records, ahead)
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


def _scenes_and_samples(folder: Path) -> tuple[Mapping[str, np.ndarray | list[str]], Columns, Positions]:
    """Samples by scene, then time; scenes without a sample (of a cut root) are left out."""
    scenes = read_table(folder, "scene", tables.Named)
    samples = read_table_columns(folder, "sample", tables.Sample)
    if not len(samples["token"]):
        raise UserError(f"{folder / 'sample.json'} holds no sample: there is nothing to index")
    scene_positions = Positions(folder, "scene", as_texts(scene.token for scene in scenes))
    scene_of = scene_positions.of(samples["scene_token"], samples["token"], "sample.scene_token")
    order = np.lexsort((samples["timestamp"], scene_of))
    samples = in_order(samples, order)
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


def _sensor_records(folder: Path, calibrations: list[tables.CalibratedSensor], sample_positions: Positions) -> Columns:
    """What the table says of the cameras and the LiDAR, by channel, then time, links as positions but for the pose;
    with the row in the table, the calibration, the channel and the sample of each."""
    calibrated = as_texts(calibration.token for calibration in calibrations)
    channels = _channels(folder, read_table(folder, "sensor", tables.Sensor), calibrations)
    records = read_table_columns(folder, "sample_data", tables.SampleData, _of_sensors(folder, calibrated, channels))
    tokens = records["token"]
    positions = Positions(folder, "calibrated_sensor", calibrated)
    calibration = positions.of(records.pop("calibrated_sensor_token"), tokens, "sample_data.calibrated_sensor_token")
    records |= {"calibration": calibration, "channel": channels[calibration]}
    records["sample"] = sample_positions.of(records.pop("sample_token"), tokens, "sample_data.sample_token")
    records = in_order(records, np.lexsort((records["timestamp"], records["channel"])))
    _link(folder, records)
    return records


def _of_sensors(folder: Path, calibrated: Tokens, channels: Int[np.ndarray, "calibrations"]) -> Choice:
    """Records but those of sensors that an index leaves out (radar)."""
    left_out = Positions(folder, "calibrated_sensor", calibrated[channels < 0])
    return Choice("calibrated_sensor_token", lambda tokens: left_out.find(tokens) < 0)


def _sensor_data(records: Columns) -> Columns:
    """Columns of the index out of records, without those for poses."""
    return {
        "data_filename": records.pop("filename"),
        "data_channel": records.pop("channel"),
        "data_calibration": records.pop("calibration"),
        "data_sample": records.pop("sample"),
        "data_timestamp_us": records.pop("timestamp"),
        "data_prev": records.pop("prev"),
        "data_next": records.pop("next"),
        "data_is_key": records.pop("is_key_frame"),
        "data_size": np.stack([records.pop("height"), records.pop("width")], axis=1),
    }


def _link(folder: Path, records: Columns) -> None:
    """Positions in place of the tokens of the records before and after, which most often are the neighbours."""
    tokens = records["token"]
    positions, rows = Positions(folder, "sample_data", tokens), np.arange(len(tokens))
    for field, step in (("prev", -1), ("next", 1)):
        linked = records.pop(field)
        records[field] = positions.of(linked, tokens, f"sample_data.{field}", may_be_empty=True, guess=rows + step)


def _ego_poses(folder: Path, records: Columns, ahead: Ahead) -> Columns:
    """The car in the world at the moment of each record."""
    poses = ahead.read("ego_pose")
    rotation, translation = poses["rotation"], poses["translation"]
    _require_directions(folder, "ego_pose", poses["token"], rotation)
    positions = Positions(folder, "ego_pose", poses.pop("token"))
    linked, row = records.pop("ego_pose_token"), records.pop("row")  # both tables tend to have one order
    pose = positions.of(linked, records["token"], "sample_data.ego_pose_token", guess=row)
    return {"ego_rotation": rotation[pose], "ego_translation": translation[pose]}


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


def _calibration_columns(folder: Path, calibrations: list[tables.CalibratedSensor]) -> Columns:
    """Where each sensor sits in the car, and its camera matrix: identity for the LiDAR, which has none."""
    rotation = np.array([c.rotation for c in calibrations], dtype=np.float64).reshape(-1, 4)
    translation = np.array([c.translation for c in calibrations], dtype=np.float64).reshape(-1, 3)
    _require_directions(folder, "calibrated_sensor", as_texts(c.token for c in calibrations), rotation)
    matrices = rigid(rotation_from_quaternion(torch.from_numpy(rotation)), torch.from_numpy(translation))
    identity = np.eye(3).tolist()
    intrinsics = [c.camera_intrinsic or identity for c in calibrations]
    return {
        "calibration_ego_from_sensor": matrices.numpy(),
        "calibration_intrinsics": np.array(intrinsics, dtype=np.float64).reshape(-1, 3, 3),
    }


def _require_directions(folder: Path, name: str, tokens: Tokens, rotation: Float[np.ndarray, "records 4"]) -> None:
    """See that every quaternion has a direction.

    Raises:
        UserError: naming the first record without.
    """
    good = np.asarray(np.einsum("ij,ij->i", rotation, rotation) > 0)
    require_all(good, folder, name, tokens, "a rotation of length zero")


def _attach_key_frames(samples: Columns, sensor_data: Columns) -> None:
    """Note with each sample the rows of its key frame's sensors, -1 where one is missing."""
    rows = np.full((len(samples["sample_scene"]), len(CHANNELS)), -1, dtype=np.int64)
    key = np.flatnonzero(sensor_data["data_is_key"])
    rows[sensor_data["data_sample"][key], sensor_data["data_channel"][key]] = key
    samples["sample_cameras"], samples["sample_lidar"] = rows[:, :LIDAR].copy(), rows[:, LIDAR].copy()


def _end_chains_with_scenes(sample_scene: Int[np.ndarray, "samples"], sensor_data: Columns) -> None:
    """Clear links to records of another scene, so that nobody who follows a chain has to look."""
    scene = sample_scene[sensor_data["data_sample"]]
    for name in ("data_prev", "data_next"):
        link = sensor_data[name]
        sensor_data[name] = np.where(scene[link] == scene, link, -1)
