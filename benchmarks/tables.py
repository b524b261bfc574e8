"""A nuScenes root of any size without sensor files: tables as large, and formatted, as the published ones."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

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


def write_tables(root: Path, *, scenes: int, key_frames: int, boxes: int = 34, track: int = 18, seed: int = 0) -> None:
    """Write a root with `scenes` scenes of `key_frames` each, and `boxes` annotations a key frame.

    Args:
        track: Key frames in which an instance is seen.
    """
    folder = root / VERSION
    folder.mkdir(parents=True)
    (root / "maps").mkdir()
    Image.new("L", (1, 1)).save(root / "maps" / "none.png")
    random = np.random.default_rng(seed)
    sensors = tuple(RECORDS_PER_KEY_FRAME)
    scene_tokens, sensor_tokens = _tokens(random, scenes), _tokens(random, len(sensors))
    log, map_token = _tokens(random, 2)
    categories, visibilities = _tokens(random, len(_CATEGORIES)), ("1", "2", "3", "4")
    (attribute,) = _tokens(random, 1)
    samples = [_tokens(random, key_frames) for _ in range(scenes)]
    calibrations = [_tokens(random, len(sensors)) for _ in range(scenes)]

    def small(name: str, records: Iterable[dict[str, Any]]) -> None:
        _write(folder / f"{name}.json", (json.dumps(record, indent=0) for record in records))

    small("attribute", [{"token": attribute, "name": "vehicle.parked", "description": ""}])
    small(
        "category", [{"token": t, "name": n, "description": ""} for t, n in zip(categories, _CATEGORIES, strict=True)]
    )
    small("visibility", [{"token": t, "level": f"v{t}", "description": ""} for t in visibilities])
    small("log", [{"token": log, "logfile": "", "vehicle": "", "date_captured": "", "location": "singapore-onenorth"}])
    small("map", [{"token": map_token, "category": "", "filename": "maps/none.png", "log_tokens": [log]}])
    small(
        "sensor",
        [
            {"token": t, "channel": c, "modality": {"C": "camera", "L": "lidar", "R": "radar"}[c[0]]}
            for t, c in zip(sensor_tokens, sensors, strict=True)
        ],
    )
    small("calibrated_sensor", _calibrations(calibrations, sensor_tokens, sensors))
    small("scene", _scenes(scene_tokens, samples, log))
    small("sample", _samples(scene_tokens, samples))
    poses = folder / "ego_pose.json"
    _write_sensor_data(folder / "sample_data.json", poses, random, samples, calibrations, sensors)
    instances: list[str] = []
    annotations = _annotations(random, samples, boxes, track, categories, attribute, instances)
    _write(folder / "sample_annotation.json", annotations)
    _write(folder / "instance.json", instances)


def _tokens(random: np.random.Generator, count: int) -> list[str]:
    text = random.bytes(16 * count).hex()
    return [text[i : i + 32] for i in range(0, len(text), 32)]


def _write(path: Path, records: Iterable[str]) -> None:
    with path.open("w") as file:
        file.write("[\n")
        for i, record in enumerate(records):
            file.write(f",\n{record}" if i else record)
        file.write("\n]")


def _calibrations(tokens: list[list[str]], sensor_tokens: list[str], sensors: tuple[str, ...]) -> Iterator[dict]:
    matrix = [
        [1266.417203046554, 0.0, 816.2670197447984],
        [0.0, 1266.417203046554, 491.50706579294757],
        [0.0, 0.0, 1.0],
    ]
    for of_scene in tokens:
        for token, sensor_token, channel in zip(of_scene, sensor_tokens, sensors, strict=True):
            yield {
                "token": token,
                "sensor_token": sensor_token,
                "translation": [1.70079118954, 0.0159456324149, 1.51095763913],
                "rotation": [0.4998015430569128, -0.5030316162024876, 0.4997798114386805, -0.49737083824542755],
                "camera_intrinsic": matrix if channel in CAMERAS else [],
            }


def _scenes(tokens: list[str], samples: list[list[str]], log: str) -> Iterator[dict]:
    for number, (token, own) in enumerate(zip(tokens, samples, strict=True)):
        yield {
            "token": token,
            "log_token": log,
            "nbr_samples": len(own),
            "first_sample_token": own[0],
            "last_sample_token": own[-1],
            "name": f"scene-{number:04d}",
            "description": "",
        }


def _samples(scene_tokens: list[str], samples: list[list[str]]) -> Iterator[dict]:
    for number, (scene, own) in enumerate(zip(scene_tokens, samples, strict=True)):
        for i, token in enumerate(own):
            yield {
                "token": token,
                "timestamp": _scene_start(number) + i * KEY_US,
                "prev": own[i - 1] if i else "",
                "next": own[i + 1] if i + 1 < len(own) else "",
                "scene_token": scene,
            }


def _scene_start(number: int) -> int:
    return START_US + number * 1_000_000_000


def _write_sensor_data(
    path: Path,
    poses: Path,
    random: np.random.Generator,
    samples: list[list[str]],
    calibrations: list[list[str]],
    sensors: tuple[str, ...],
) -> None:
    """`sample_data` and `ego_pose`, which have one record each for everything that a sensor took."""
    with path.open("w") as data, poses.open("w") as pose:
        lead = "[\n"
        for number, (own, calibrated) in enumerate(zip(samples, calibrations, strict=True)):
            for channel, calibration in zip(sensors, calibrated, strict=True):
                per_key = RECORDS_PER_KEY_FRAME[channel]
                count = len(own) * per_key
                tokens = ["", *_tokens(random, count), ""]
                pose_tokens = _tokens(random, count)
                numbers = random.random((count, 7)).tolist()
                camera = channel in CAMERAS
                size, ending = (("900", "1600"), "jpg") if camera else (("0", "0"), "pcd")
                for i, (pose_token, values) in enumerate(zip(pose_tokens, numbers, strict=True)):
                    time = _scene_start(number) + i * KEY_US // per_key
                    key = i % per_key == 0
                    place = (
                        f"{'samples' if key else 'sweeps'}/{channel}/n015-2018-07-24-11-22-45+0800__{channel}__{time}"
                    )
                    data.write(
                        f'{lead}{{\n"token": "{tokens[i + 1]}",\n"sample_token": "{own[i // per_key]}",\n'
                        f'"ego_pose_token": "{pose_token}",\n"calibrated_sensor_token": "{calibration}",\n'
                        f'"timestamp": {time},\n"fileformat": "{ending}",\n"is_key_frame": {str(key).lower()},\n'
                        f'"height": {size[0]},\n"width": {size[1]},\n"filename": "{place}.{ending}",\n'
                        f'"prev": "{tokens[i]}",\n"next": "{tokens[i + 2]}"\n}}'
                    )
                    pose.write(
                        f'{lead}{{\n"token": "{pose_token}",\n"timestamp": {time},\n"rotation": [\n'
                        f"{values[0]},\n{values[1]},\n{values[2]},\n{values[3]}\n],\n"
                        f'"translation": [\n{values[4]},\n{values[5]},\n{values[6]}\n]\n}}'
                    )
                    lead = ",\n"
        data.write("\n]")
        pose.write("\n]")


def _annotations(
    random: np.random.Generator,
    samples: list[list[str]],
    boxes: int,
    track: int,
    categories: list[str],
    attribute: str,
    instances: list[str],
) -> Iterator[str]:
    """Records of `sample_annotation`; those of `instance` are added to `instances` on the way."""
    for own in samples:
        length = min(track, len(own))
        for _ in range(max(1, round(len(own) * boxes / length))):
            (instance,) = _tokens(random, 1)
            tokens = ["", *_tokens(random, length), ""]
            first = int(random.integers(len(own) - length + 1))
            category = categories[int(random.integers(len(categories)))]
            record = {
                "token": instance,
                "category_token": category,
                "nbr_annotations": length,
                "first_annotation_token": tokens[1],
                "last_annotation_token": tokens[-2],
            }
            instances.append(json.dumps(record, indent=0))
            for i, values in enumerate((0.5 + random.random((length, 10))).tolist()):
                yield (
                    f'{{\n"token": "{tokens[i + 1]}",\n"sample_token": "{own[first + i]}",\n'
                    f'"instance_token": "{instance}",\n"visibility_token": "{1 + i % 4}",\n'
                    f'"attribute_tokens": [\n"{attribute}"\n],\n'
                    f'"translation": [\n{values[0]},\n{values[1]},\n{values[2]}\n],\n'
                    f'"size": [\n{values[3]},\n{values[4]},\n{values[5]}\n],\n'
                    f'"rotation": [\n{values[6]},\n{values[7]},\n{values[8]},\n{values[9]}\n],\n'
                    f'"prev": "{tokens[i]}",\n"next": "{tokens[i + 2]}",\n"num_lidar_pts": {i},\n"num_radar_pts": 1\n}}'
                )
