"""A nuScenes root of any size without sensor files: tables as large, and formatted, as the published ones."""

from pathlib import Path

import numpy as np
from PIL import Image

from dualdistill.data.tables import (
    Attribute,
    CalibratedSensor,
    Category,
    EgoPose,
    Instance,
    Log,
    Map,
    Sample,
    SampleAnnotation,
    SampleData,
    Scene,
    Sensor,
    TableWriter,
    Visibility,
    links,
)
from dualdistill.structures import CAMERAS

VERSION = "v1.0-trainval"

RADARS = ("RADAR_FRONT", "RADAR_FRONT_LEFT", "RADAR_FRONT_RIGHT", "RADAR_BACK_LEFT", "RADAR_BACK_RIGHT")

RECORDS_PER_KEY_FRAME = dict.fromkeys(CAMERAS, 6) | {"LIDAR_TOP": 10} | dict.fromkeys(RADARS, 6)
"""76 in all; the published trainval tables have 77."""

KEY_US = 500_000
START_US = 1_532_402_900_000_000

_CATEGORIES = (
    "vehicle.car",
    "human.pedestrian.adult",
    "movable_object.barrier",
    "movable_object.trafficcone",
    "animal",
)
_VISIBILITIES = ("1", "2", "3", "4")

_INTRINSIC = [
    [1266.417203046554, 0.0, 816.2670197447984],
    [0.0, 1266.417203046554, 491.50706579294757],
    [0.0, 0.0, 1.0],
]


def write_tables(root: Path, *, scenes: int, key_frames: int, boxes: int = 34, track: int = 18, seed: int = 0) -> None:
    """Write a root with `scenes` scenes of `key_frames` each, and `boxes` annotations a key frame.

    Args:
        track: Key frames in which an instance is seen.
    """
    (root / "maps").mkdir(parents=True)
    Image.new("L", (1, 1)).save(root / "maps" / "none.png")
    random = np.random.default_rng(seed)
    channels = tuple(RECORDS_PER_KEY_FRAME)
    sensors, categories = _tokens(random, len(channels)), _tokens(random, len(_CATEGORIES))
    log, map_token, attribute = _tokens(random, 3)
    with TableWriter(root / VERSION) as tables:
        tables.write(Attribute(token=attribute, name="vehicle.parked"))
        tables.write(Log(token=log, location="singapore-onenorth"))
        tables.write(Map(token=map_token, filename="maps/none.png", log_tokens=[log]))
        for token, name in zip(categories, _CATEGORIES, strict=True):
            tables.write(Category(token=token, name=name))
        for level in _VISIBILITIES:
            tables.write(Visibility(token=level, level=f"v{level}"))
        for token, channel in zip(sensors, channels, strict=True):
            modality = {"C": "camera", "L": "lidar", "R": "radar"}[channel[0]]
            tables.write(Sensor(token=token, channel=channel, modality=modality))
        for number in range(scenes):
            (scene,), samples = _tokens(random, 1), _tokens(random, key_frames)
            ends = {"first_sample_token": samples[0], "last_sample_token": samples[-1]}
            tables.write(Scene(token=scene, log_token=log, nbr_samples=key_frames, name=f"scene-{number:04d}", **ends))
            start_us = START_US + number * 1_000_000_000
            for i, token in enumerate(samples):
                time_us = start_us + i * KEY_US
                tables.write(Sample(token=token, timestamp=time_us, **links(samples, i), scene_token=scene))
            for token, channel in zip(sensors, channels, strict=True):
                _write_sensor_data(tables, random, samples, token, channel, start_us)
            for _ in range(max(1, round(key_frames * boxes / min(track, key_frames)))):
                category = categories[int(random.integers(len(categories)))]
                _write_instance(tables, random, samples, min(track, key_frames), category, attribute)


def _tokens(random: np.random.Generator, count: int) -> list[str]:
    text = random.bytes(16 * count).hex()
    return [text[i : i + 32] for i in range(0, len(text), 32)]


def _write_sensor_data(
    tables: TableWriter, random: np.random.Generator, samples: list[str], sensor: str, channel: str, start_us: int
) -> None:
    """What one sensor recorded in one scene."""
    camera, per_key = channel in CAMERAS, RECORDS_PER_KEY_FRAME[channel]
    count = len(samples) * per_key
    tokens, poses = _tokens(random, count), _tokens(random, count)
    (calibration,) = _tokens(random, 1)
    tables.write(
        CalibratedSensor(
            token=calibration,
            sensor_token=sensor,
            translation=(1.70079118954, 0.0159456324149, 1.51095763913),
            rotation=(0.4998015430569128, -0.5030316162024876, 0.4997798114386805, -0.49737083824542755),
            camera_intrinsic=_INTRINSIC if camera else [],
        )
    )
    height, width, suffix = (900, 1600, "jpg") if camera else (0, 0, "pcd")
    for i, values in enumerate(random.random((count, 7)).tolist()):
        time_us, is_key = start_us + i * KEY_US // per_key, i % per_key == 0
        folder = "samples" if is_key else "sweeps"
        tables.write(EgoPose(token=poses[i], timestamp=time_us, rotation=values[:4], translation=values[4:]))
        tables.write(
            SampleData(
                token=tokens[i],
                sample_token=samples[i // per_key],
                ego_pose_token=poses[i],
                calibrated_sensor_token=calibration,
                timestamp=time_us,
                fileformat=suffix,
                is_key_frame=is_key,
                height=height,
                width=width,
                filename=f"{folder}/{channel}/n015-2018-07-24-11-22-45+0800__{channel}__{time_us}.{suffix}",
                **links(tokens, i),
            )
        )


def _write_instance(
    tables: TableWriter, random: np.random.Generator, samples: list[str], length: int, category: str, attribute: str
) -> None:
    """An object that is seen in `length` key frames after another."""
    (instance,), tokens = _tokens(random, 1), _tokens(random, length)
    first = int(random.integers(len(samples) - length + 1))
    tables.write(
        Instance(
            token=instance,
            category_token=category,
            nbr_annotations=length,
            first_annotation_token=tokens[0],
            last_annotation_token=tokens[-1],
        )
    )
    for i, values in enumerate((0.5 + random.random((length, 10))).tolist()):
        tables.write(
            SampleAnnotation(
                token=tokens[i],
                sample_token=samples[first + i],
                instance_token=instance,
                visibility_token=_VISIBILITIES[i % len(_VISIBILITIES)],
                attribute_tokens=[attribute],
                translation=values[:3],
                size=values[3:6],
                rotation=values[6:],
                **links(tokens, i),
                num_lidar_pts=i,
                num_radar_pts=1,
            )
        )
