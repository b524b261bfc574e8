"""From JSON tables to columns: links become positions, classes numbers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Int

from dualdistill.data.build_annotations import annotation_columns
from dualdistill.data.plausible import (
    FARTHEST_MOUNTING,
    LARGEST_SIDE,
    MATRIX,
    good_matrices,
    good_mountings,
    good_principal_points,
    good_sizes,
)
from dualdistill.data.read_tables import Columns, in_order, key_of, read_records, read_table_columns
from dualdistill.data.tables import (
    Attribute,
    CalibratedSensor,
    Category,
    EgoPose,
    Sample,
    SampleData,
    Scene,
    Sensor,
    require_tables,
)
from dualdistill.data.tokens import Tokens
from dualdistill.errors import UserError
from dualdistill.geometry.transforms import rigid, rotation_from_quaternion
from dualdistill.structures import CAMERAS

CHANNELS = (*CAMERAS, "LIDAR_TOP")
"""Sensors an index keeps; `data_channel` counts in this order."""

LIDAR = CHANNELS.index("LIDAR_TOP")

_NOT_INSIDE = r"^/|^\w:|\\|[\x00-\x1f]|(^|/)\.\.(/|$)|^$"
"""File names that are absolute, leave the root, or are none."""


def build_columns(folder: Path) -> Iterator[tuple[str, Columns]]:
    """Name and columns of each file of an index, from the version folder of a nuScenes root.

    One file follows another, so that those written need not be held.

    Raises:
        UserError: for tables that are missing, cut off, or contradict each other.
    """
    require_tables(folder)
    scenes, samples, sample_tokens = _scenes_and_samples(folder)
    yield "scenes", scenes
    calibrations, channels, calibration_tokens = _calibrations(folder)
    yield "calibrations", calibrations
    data, poses, data_tokens = _sensor_data(folder, sample_tokens, calibration_tokens, channels)
    _require_images(data, data_tokens, calibrations["calibration_intrinsics"])
    _end_chains_with_scenes(samples["sample_scene"], data)
    _attach_key_frames(samples, data)
    yield "sensor_data", data
    del data
    yield "sensor_poses", _ego_poses(folder, data_tokens, poses)
    del data_tokens, poses
    categories, attributes = (read_table_columns(folder, record, "token name") for record in (Category, Attribute))
    annotations = annotation_columns(folder, sample_tokens, samples["sample_timestamp_us"], categories, attributes)
    of_sample = annotations.pop("annotation_sample")
    samples["annotation_count"] = np.bincount(of_sample, minlength=len(samples["sample_scene"]))
    yield "samples", samples
    yield "annotations", annotations
    yield "categories", {"categories": categories["name"]}
    yield "attributes", {"attributes": attributes["name"]}


def _scenes_and_samples(folder: Path) -> tuple[Columns, Columns, Tokens]:
    """Samples by scene, then time; scenes without a sample (of a cut root) are left out."""
    scenes = read_table_columns(folder, Scene, "token token_text name")
    samples = read_table_columns(folder, Sample, "token token_text timestamp prev next scene_token")
    if not len(samples["token"]):
        raise UserError(f"{folder / 'sample.json'} holds no sample: there is nothing to index")
    referring = Tokens(folder, Sample, samples["token"])
    scene_tokens = Tokens(folder, Scene, scenes["token"])
    samples["scene"] = scene_tokens.positions(referring, "scene_token", samples.pop("scene_token"))
    samples = in_order(samples, np.lexsort((samples["timestamp"], samples["scene"])))
    kept, scene = np.unique(samples["scene"], return_inverse=True)
    tokens = Tokens(folder, Sample, samples["token"])
    links = tokens.links(samples, scene, np.arange(len(scene)), "scene")
    return (
        {
            "scene_name": scenes["name"].take(pa.array(kept)),
            "scene_token": scenes["token_text"].take(pa.array(kept)),
        },
        {
            "sample_token": samples["token_text"],
            "sample_timestamp_us": samples["timestamp"],
            "sample_scene": scene.astype(np.int64),
            "sample_prev": links["prev"],
            "sample_next": links["next"],
        },
        tokens,
    )


def _calibrations(folder: Path) -> tuple[Columns, Int[np.ndarray, "calibrations"], Tokens]:
    """Mounting and camera matrix of each sensor (identity for others than cameras); and its channel, -1 for those that
    an index leaves out (radar)."""
    records = [each for part in read_records(folder, CalibratedSensor) for each in part]
    tokens = Tokens(folder, CalibratedSensor, np.array([key_of(record.token) for record in records], np.int64))
    linked = np.array([key_of(record.sensor_token) for record in records], np.int64)
    sensors = read_table_columns(folder, Sensor, "token channel")
    sensor = Tokens(folder, Sensor, sensors["token"]).positions(tokens, "sensor_token", linked)
    number = [CHANNELS.index(channel) if channel in CHANNELS else -1 for channel in sensors["channel"].to_pylist()]
    channels = np.array(number, dtype=np.int64)[sensor]
    rotation = np.array([record.rotation for record in records], dtype=np.float64).reshape(-1, 4)
    translation = np.array([record.translation for record in records], dtype=np.float64).reshape(-1, 3)
    tokens.require_poses(rotation, translation)
    what = f"a sensor mounted {FARTHEST_MOUNTING:g} m or more from the car's origin"
    tokens.require(good_mountings(translation), "translation", what)
    intrinsics = np.tile(np.eye(3), (len(records), 1, 1))
    is_camera = (channels >= 0) & (channels != LIDAR)
    of_cameras = [record.camera_intrinsic for record, camera in zip(records, is_camera, strict=True) if camera]
    good = ~is_camera
    good[is_camera] = [[len(row) for row in rows] == [3, 3, 3] for rows in of_cameras]
    tokens.require(good, "camera_intrinsic", "a camera matrix that is not 3x3")
    intrinsics[is_camera] = np.array(of_cameras, dtype=np.float64).reshape(-1, 3, 3)
    what = f"a camera matrix that is not {MATRIX}"
    tokens.require(good_matrices(intrinsics), "camera_intrinsic", what)
    matrices = rigid(rotation_from_quaternion(torch.from_numpy(rotation)), torch.from_numpy(translation))
    columns = {"calibration_ego_from_sensor": matrices.numpy(), "calibration_intrinsics": intrinsics}
    return columns, channels, tokens


def _sensor_data(
    folder: Path, samples: Tokens, calibrations: Tokens, channels: Int[np.ndarray, "calibrations"]
) -> tuple[Columns, Int[np.ndarray, "data"], Tokens]:
    """Records of the cameras and the LiDAR, by channel, then time; and the key of each one's pose."""
    left_out = set(calibrations.keys[channels < 0].tolist())
    records = read_table_columns(
        folder,
        SampleData,
        "token sample_token ego_pose_token calibrated_sensor_token timestamp is_key_frame height width filename prev "
        "next",
        keep=lambda record: key_of(record.calibrated_sensor_token) not in left_out,
    )
    referring = Tokens(folder, SampleData, records["token"])
    calibration = calibrations.positions(referring, "calibrated_sensor_token", records.pop("calibrated_sensor_token"))
    records |= {"calibration": calibration, "channel": channels[calibration]}
    records["sample"] = samples.positions(referring, "sample_token", records.pop("sample_token"))
    records = in_order(records, np.lexsort((records["timestamp"], records["channel"])))
    tokens = Tokens(folder, SampleData, records.pop("token"))
    links = tokens.links(records, records["channel"], np.arange(len(tokens.keys)), "sensor")
    outside = np.asarray(pc.match_substring_regex(records["filename"], _NOT_INSIDE))
    tokens.require(~outside, "filename", "a file name that is empty, absolute or leaves the root")
    return (
        {
            "data_filename": records["filename"],
            "data_channel": records["channel"],
            "data_calibration": records["calibration"],
            "data_sample": records["sample"],
            "data_timestamp_us": records["timestamp"],
            "data_prev": links["prev"],
            "data_next": links["next"],
            "data_is_key": records["is_key_frame"],
            "data_size": np.stack([records["height"], records["width"]], axis=1),
        },
        records["ego_pose_token"],
        tokens,
    )


def _require_images(data: Columns, tokens: Tokens, intrinsics: Float[np.ndarray, "calibrations 3 3"]) -> None:
    """Check that images have a size, and their cameras' principal points lie inside them.

    Raises:
        UserError: naming the first record where it is not so.
    """
    other, size = data["data_channel"] == LIDAR, data["data_size"]
    tokens.require(other | good_sizes(size), "height width", f"no image height and width between 1 and {LARGEST_SIDE}")
    inside = good_principal_points(intrinsics[data["data_calibration"]], size)
    what = "a calibrated sensor whose principal point lies outside the image"
    tokens.require(other | inside, "calibrated_sensor_token", what)


def _ego_poses(folder: Path, data: Tokens, linked: Int[np.ndarray, "data"]) -> Columns:
    """The car in the global frame at the moment of each record."""
    poses = read_table_columns(folder, EgoPose, "token rotation translation")
    tokens = Tokens(folder, EgoPose, poses.pop("token"))
    tokens.require_poses(poses["rotation"], poses["translation"])
    pose = tokens.positions(data, "ego_pose_token", linked)
    return {"ego_rotation": poses.pop("rotation")[pose], "ego_translation": poses.pop("translation")[pose]}


def _attach_key_frames(samples: Columns, data: Columns) -> None:
    """Add to each sample the rows of its key frame's sensors, -1 where one is missing."""
    rows = np.full((len(samples["sample_scene"]), len(CHANNELS)), -1, dtype=np.int64)
    key = np.flatnonzero(data["data_is_key"])
    rows[data["data_sample"][key], data["data_channel"][key]] = key
    samples["sample_cameras"], samples["sample_lidar"] = rows[:, :LIDAR].copy(), rows[:, LIDAR].copy()


def _end_chains_with_scenes(sample_scene: Int[np.ndarray, "samples"], data: Columns) -> None:
    """Clear links to records of another scene, so that following a chain needs no check."""
    scene = sample_scene[data["data_sample"]]
    for name in ("data_prev", "data_next"):
        link = data[name]
        data[name] = np.where(scene[link] == scene, link, -1)
