"""A nuScenes root of any size without sensor files: tables as large, and formatted, as the published ones."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dualdistill.structures import CAMERAS

VERSION = "v1.0-trainval"

RADARS = ("RADAR_FRONT", "RADAR_FRONT_LEFT", "RADAR_FRONT_RIGHT", "RADAR_BACK_LEFT", "RADAR_BACK_RIGHT")

RECORDS_PER_KEY_FRAME = dict.fromkeys(CAMERAS, 6) | {"LIDAR_TOP": 10} | dict.fromkeys(RADARS, 6)
"""76 in all; the published trainval tables have 77."""

KEY_US, SCENE_US, START_US = 500_000, 1_000_000_000, 1_532_402_900_000_000
"""Microseconds between key frames, between the starts of scenes, and of the first of them."""

CATEGORIES = ("vehicle.car", "human.pedestrian.adult", "movable_object.barrier", "movable_object.trafficcone", "animal")


def write_tables(root: Path, *, scenes: int, key_frames: int, boxes: int = 34, track: int = 18, seed: int = 0) -> None:
    """Write a root with `scenes` scenes of `key_frames` each, and `boxes` annotations a key frame.

    Args:
        track: Key frames in which an instance is seen.
    """
    (root / "maps").mkdir(parents=True)
    (root / VERSION).mkdir()
    Image.new("L", (1, 1)).save(root / "maps" / "none.png")
    with ExitStack() as stack:
        tables = _Tables(root / VERSION, stack, np.random.default_rng(seed))
        tables.add_shared()
        for number in range(scenes):
            tables.add_scene(number, key_frames, boxes, track)


class _Tables:
    """The 13 tables, written record by record: those of trainval do not fit in memory as Python objects."""

    def __init__(self, folder: Path, stack: ExitStack, random: np.random.Generator):
        self.folder, self.stack, self.random = folder, stack, random
        self.files: dict[str, Any] = {}

    def add(self, table: str, token: str, **fields: Any) -> None:
        """A record whose values are JSON values; slow, for the small tables."""
        self.write(table, json.dumps({"token": token, **fields}, indent=0))

    def write(self, table: str, record: str) -> None:
        """A record in the layout of the published tables: every value on a line of its own."""
        if table not in self.files:
            self.files[table] = self.stack.enter_context((self.folder / f"{table}.json").open("w"))
            self.files[table].write("[\n")
            self.stack.callback(self.files[table].write, "\n]")
        else:
            self.files[table].write(",\n")
        self.files[table].write(record)

    def tokens(self, count: int) -> list[str]:
        text = self.random.bytes(16 * count).hex()
        return [text[i : i + 32] for i in range(0, len(text), 32)]

    def add_shared(self) -> None:
        self.log, map_token, self.attribute = self.tokens(3)
        self.categories, sensors = self.tokens(len(CATEGORIES)), self.tokens(len(RECORDS_PER_KEY_FRAME))
        self.sensors = dict(zip(RECORDS_PER_KEY_FRAME, sensors, strict=True))
        self.add("attribute", self.attribute, name="vehicle.parked", description="")
        for token, name in zip(self.categories, CATEGORIES, strict=True):
            self.add("category", token, name=name, description="")
        for token in "1234":
            self.add("visibility", token, level=f"v{token}", description="")
        self.add("log", self.log, logfile="", vehicle="", date_captured="", location="singapore-onenorth")
        self.add("map", map_token, category="", filename="maps/none.png", log_tokens=[self.log])
        for channel, token in self.sensors.items():
            self.add("sensor", token, channel=channel, modality={"C": "camera", "L": "lidar", "R": "radar"}[channel[0]])

    def add_scene(self, number: int, key_frames: int, boxes: int, track: int) -> None:
        (scene,), samples, start = self.tokens(1), self.tokens(key_frames), START_US + number * SCENE_US
        ends = {"first_sample_token": samples[0], "last_sample_token": samples[-1]}
        name = f"scene-{number:04d}"
        self.add("scene", scene, log_token=self.log, nbr_samples=key_frames, **ends, name=name, description="")
        for i, (before, token, after) in enumerate(_links(samples)):
            self.add("sample", token, timestamp=start + i * KEY_US, prev=before, next=after, scene_token=scene)
        for channel in RECORDS_PER_KEY_FRAME:
            self._add_recordings(channel, samples, start)
        for _ in range(max(1, round(key_frames * boxes / min(track, key_frames)))):
            self._add_instance(samples, min(track, key_frames))

    def _add_recordings(self, channel: str, samples: list[str], start: int) -> None:
        """`sample_data` and `ego_pose`, which have one record each for everything that a sensor recorded."""
        (calibration,), camera = self.tokens(1), channel in CAMERAS
        matrix = [
            [1266.417203046554, 0.0, 816.2670197447984],
            [0.0, 1266.417203046554, 491.50706579294757],
            [0.0, 0.0, 1.0],
        ]
        self.add(
            "calibrated_sensor",
            calibration,
            sensor_token=self.sensors[channel],
            translation=[1.70079118954, 0.0159456324149, 1.51095763913],
            rotation=[0.4998015430569128, -0.5030316162024876, 0.4997798114386805, -0.49737083824542755],
            camera_intrinsic=matrix if camera else [],
        )
        per_key = RECORDS_PER_KEY_FRAME[channel]
        count = len(samples) * per_key
        height, width, ending = (900, 1600, "jpg") if camera else (0, 0, "pcd")
        poses, numbers = self.tokens(count), self.random.random((count, 7)).tolist()
        for i, (before, token, after) in enumerate(_links(self.tokens(count))):
            time, is_key = start + i * KEY_US // per_key, i % per_key == 0
            place = f"{'samples' if is_key else 'sweeps'}/{channel}/n015-2018-07-24-11-22-45+0800__{channel}__{time}"
            self.write(
                "sample_data",
                f'{{\n"token": "{token}",\n"sample_token": "{samples[i // per_key]}",\n'
                f'"ego_pose_token": "{poses[i]}",\n"calibrated_sensor_token": "{calibration}",\n'
                f'"timestamp": {time},\n"fileformat": "{ending}",\n"is_key_frame": {str(is_key).lower()},\n'
                f'"height": {height},\n"width": {width},\n"filename": "{place}.{ending}",\n'
                f'"prev": "{before}",\n"next": "{after}"\n}}',
            )
            pose = f'{{\n"token": "{poses[i]}",\n"timestamp": {time},\n"rotation": {_list(numbers[i][:4])},\n'
            self.write("ego_pose", f'{pose}"translation": {_list(numbers[i][4:])}\n}}')

    def _add_instance(self, samples: list[str], length: int) -> None:
        (instance,), tokens = self.tokens(1), self.tokens(length)
        first = int(self.random.integers(len(samples) - length + 1))
        category = self.categories[int(self.random.integers(len(CATEGORIES)))]
        ends = {"first_annotation_token": tokens[0], "last_annotation_token": tokens[-1]}
        self.add("instance", instance, category_token=category, nbr_annotations=length, **ends)
        numbers = (0.5 + self.random.random((length, 10))).tolist()
        for i, (before, token, after) in enumerate(_links(tokens)):
            self.write(
                "sample_annotation",
                f'{{\n"token": "{token}",\n"sample_token": "{samples[first + i]}",\n'
                f'"instance_token": "{instance}",\n"visibility_token": "{1 + i % 4}",\n'
                f'"attribute_tokens": [\n"{self.attribute}"\n],\n"translation": {_list(numbers[i][:3])},\n'
                f'"size": {_list(numbers[i][3:6])},\n"rotation": {_list(numbers[i][6:])},\n'
                f'"prev": "{before}",\n"next": "{after}",\n"num_lidar_pts": {i},\n"num_radar_pts": 1\n}}',
            )


def _links(tokens: list[str]) -> Iterator[tuple[str, str, str]]:
    """Each token with the one before and the one after it, "" at the ends."""
    return zip(["", *tokens[:-1]], tokens, [*tokens[1:], ""], strict=True)


def _list(values: list[float]) -> str:
    return "[\n" + ",\n".join(map(str, values)) + "\n]"
