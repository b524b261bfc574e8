"""A nuScenes root small enough to write in a test: static points, a moving car, a turning ego car."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dualdistill.structures import CAMERAS

WIDTH, HEIGHT = 160, 90
START_US = 1_600_000_000_000_000
KEY_US, LIDAR_US, CAMERA_US = 500_000, 50_000, 83_333
CAMERA_YAW = dict(zip(CAMERAS, (55.0, 0.0, -55.0, 110.0, 180.0, -110.0), strict=True))
SIZES = {"vehicle.car": (1.9, 4.5, 1.6), "human.pedestrian.adult": (0.7, 0.8, 1.8), "animal": (0.4, 0.9, 0.6)}
ATTRIBUTES = ("vehicle.moving", "pedestrian.standing")
RECORDS = dict[str, list[dict]]


def yaw_quaternion(yaw: float) -> list[float]:
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]


def pose_matrix(translation: list[float], yaw: float) -> np.ndarray:
    cos, sin = np.cos(yaw), np.sin(yaw)
    matrix = np.eye(4)
    matrix[:2, :2] = [[cos, -sin], [sin, cos]]
    matrix[:3, 3] = translation
    return matrix


def ego_pose(seconds: float) -> tuple[list[float], float]:
    """Global position and heading of the ego car: 5 m/s while turning."""
    return [600.0 + 5.0 * seconds, 1600.0 - 0.5 * seconds**2, 0.0], 0.3 + 0.2 * seconds


def camera_rotation(yaw: float) -> list[float]:
    """Ego from camera: the axes of a camera (x right, y down, z forward), then its heading."""
    forward = np.array([0.5, -0.5, 0.5, -0.5])
    w, z = np.cos(yaw / 2), np.sin(yaw / 2)
    a, b, c, d = forward
    return [w * a - z * d, w * b - z * c, w * c + z * b, w * d + z * a]


LIDAR_ROTATION = yaw_quaternion(-np.pi / 2)
LIDAR_TRANSLATION = [0.94, 0.0, 1.84]


@dataclass(frozen=True)
class TinyRoot:
    """The written root, and what was put into it."""

    path: Path
    version: str
    world: np.ndarray
    """Static points, global frame."""

    def table(self, name: str) -> list[dict]:
        return json.loads((self.path / self.version / f"{name}.json").read_text())

    def rewrite(self, name: str, change: Callable[[list[dict]], None]) -> None:
        """Let `change` edit the records of a table in place."""
        records = self.table(name)
        change(records)
        (self.path / self.version / f"{name}.json").write_text(json.dumps(records))


def write_root(
    path: Path,
    scenes: dict[str, int],
    *,
    version: str = "v1.0-mini",
    sweeps: bool = True,
    annotated: bool = True,
) -> TinyRoot:
    """Write scenes of so many key frames; without `sweeps`, chains lead from key frame to key frame."""
    generator = np.random.default_rng(7)
    world = generator.uniform([560, 1560, 0], [660, 1640, 3], (600, 3))
    road = (np.abs(world[:, 0] - 606) < 12) & (np.abs(world[:, 1] - 1598) < 6)
    world = world[~road]
    tables: RECORDS = {name: [] for name in ("sample", "sample_data", "ego_pose", "sample_annotation", "instance")}
    tables |= _fixed_tables(scenes)
    for number, (scene, count) in enumerate(scenes.items()):
        _add_scene(path, tables, number, scene, count, world, sweeps, annotated)
    (path / version).mkdir(parents=True)
    for name, records in tables.items():
        (path / version / f"{name}.json").write_text(json.dumps(records))
    return TinyRoot(path, version, world)


def _fixed_tables(scenes: dict[str, int]) -> RECORDS:
    calibrations = [
        {
            "token": f"calibrated-{name}",
            "sensor_token": f"sensor-{name}",
            "translation": [1.0, 0.0, 1.5],
            "rotation": camera_rotation(float(np.radians(yaw))),
            "camera_intrinsic": [[120.0, 0.0, WIDTH / 2], [0.0, 120.0, HEIGHT / 2], [0.0, 0.0, 1.0]],
        }
        for name, yaw in CAMERA_YAW.items()
    ]
    calibrations.append(
        {
            "token": "calibrated-LIDAR_TOP",
            "sensor_token": "sensor-LIDAR_TOP",
            "translation": LIDAR_TRANSLATION,
            "rotation": LIDAR_ROTATION,
            "camera_intrinsic": [],
        }
    )
    radar = {**calibrations[-1], "token": "calibrated-RADAR_FRONT", "sensor_token": "sensor-RADAR_FRONT"}
    sensors = [*CAMERA_YAW, "LIDAR_TOP", "RADAR_FRONT"]
    return {
        "attribute": [{"token": f"attribute-{name}", "name": name, "description": ""} for name in ATTRIBUTES],
        "calibrated_sensor": [*calibrations, radar],
        "category": [{"token": f"category-{name}", "name": name, "description": ""} for name in SIZES],
        "log": [{"token": "log", "logfile": "", "vehicle": "", "date_captured": "", "location": "nowhere"}],
        "map": [{"token": "map", "category": "", "filename": "maps/none.png", "log_tokens": ["log"]}],
        "scene": [
            {
                "token": f"{name}-token",
                "log_token": "log",
                "nbr_samples": count,
                "first_sample_token": f"{name}-0",
                "last_sample_token": f"{name}-{count - 1}",
                "name": name,
                "description": "",
            }
            for name, count in scenes.items()
        ],
        "sensor": [{"token": f"sensor-{name}", "channel": name, "modality": ""} for name in sensors],
        "visibility": [
            {"token": str(number), "level": level, "description": ""}
            for number, level in enumerate(("v0-40", "v40-60", "v60-80", "v80-100"), start=1)
        ],
    }


def _add_scene(
    path: Path,
    tables: RECORDS,
    number: int,
    scene: str,
    count: int,
    world: np.ndarray,
    sweeps: bool,
    annotated: bool,
) -> None:
    start_us = START_US + number * 100_000_000
    length_us = (count - 1) * KEY_US
    for i in range(count):
        tables["sample"].append(
            {
                "token": f"{scene}-{i}",
                "timestamp": start_us + i * KEY_US,
                "prev": f"{scene}-{i - 1}" if i else "",
                "next": f"{scene}-{i + 1}" if i + 1 < count else "",
                "scene_token": f"{scene}-token",
            }
        )
    for sensor in (*CAMERAS, "LIDAR_TOP"):
        step = KEY_US if not sweeps else LIDAR_US if sensor == "LIDAR_TOP" else CAMERA_US
        times = sorted({*range(0, length_us + 1, KEY_US), *_between(step, length_us)})
        _add_records(path, tables, scene, sensor, start_us, times, world)
    if annotated:
        _add_annotations(tables, scene, count)


def _between(step_us: int, length_us: int) -> list[int]:
    """Times of sweeps that are not key frames."""
    if step_us == KEY_US:
        return []
    per_key = round(KEY_US / step_us)
    return [key + i * step_us for key in range(0, length_us, KEY_US) for i in range(1, per_key)]


def _add_records(
    path: Path, tables: RECORDS, scene: str, sensor: str, start_us: int, times: list[int], world: np.ndarray
) -> None:
    suffix = "pcd.bin" if sensor == "LIDAR_TOP" else "jpg"
    for i, time_us in enumerate(times):
        is_key = time_us % KEY_US == 0
        token = f"{scene}-{sensor}-{i}"
        filename = f"{'samples' if is_key else 'sweeps'}/{sensor}/{token}.{suffix}"
        translation, yaw = ego_pose(time_us * 1e-6)
        (path / filename).parent.mkdir(parents=True, exist_ok=True)
        if sensor == "LIDAR_TOP":
            _write_points(path / filename, world, pose_matrix(translation, yaw))
        else:
            colour = (10 * CAMERAS.index(sensor), 200, min(255, i))
            Image.new("RGB", (WIDTH, HEIGHT), colour).save(path / filename, quality=95)
        tables["ego_pose"].append(
            {
                "token": token,
                "timestamp": start_us + time_us,
                "translation": translation,
                "rotation": yaw_quaternion(yaw),
            }
        )
        tables["sample_data"].append(
            {
                "token": token,
                "sample_token": f"{scene}-{-(-time_us // KEY_US)}",
                "ego_pose_token": token,
                "calibrated_sensor_token": f"calibrated-{sensor}",
                "timestamp": start_us + time_us,
                "fileformat": suffix,
                "is_key_frame": is_key,
                "height": 0 if sensor == "LIDAR_TOP" else HEIGHT,
                "width": 0 if sensor == "LIDAR_TOP" else WIDTH,
                "filename": filename,
                "prev": f"{scene}-{sensor}-{i - 1}" if i else "",
                "next": f"{scene}-{sensor}-{i + 1}" if i + 1 < len(times) else "",
            }
        )


def _write_points(path: Path, world: np.ndarray, global_from_ego: np.ndarray) -> None:
    global_from_lidar = global_from_ego @ pose_matrix(LIDAR_TRANSLATION, -np.pi / 2)
    points = (world - global_from_lidar[:3, 3]) @ global_from_lidar[:3, :3]
    # One more on the ego car itself, which only the key frame may keep.
    points = np.concatenate([points, [[0.5, -0.5, -1.0]]])
    rest = np.tile([100.0, 7.0], (len(points), 1))
    path.write_bytes(np.concatenate([points, rest], axis=1).astype(np.float32).tobytes())


def _add_annotations(tables: RECORDS, scene: str, count: int) -> None:
    for category, size in SIZES.items():
        instance = f"{scene}-{category}"
        tables["instance"].append(
            {
                "token": instance,
                "category_token": f"category-{category}",
                "nbr_annotations": count,
                "first_annotation_token": f"{instance}-0",
                "last_annotation_token": f"{instance}-{count - 1}",
            }
        )
        moving = category == "vehicle.car"
        for i in range(count):
            tables["sample_annotation"].append(
                {
                    "token": f"{instance}-{i}",
                    "sample_token": f"{scene}-{i}",
                    "instance_token": instance,
                    "visibility_token": "4" if moving else "1",
                    "attribute_tokens": ["attribute-vehicle.moving"] if moving else [],
                    "translation": [610.0 + 2.0 * i if moving else 605.0, 1610.0, 1.0],
                    "size": list(size),
                    "rotation": yaw_quaternion(0.0 if moving else 0.7),
                    "prev": f"{instance}-{i - 1}" if i else "",
                    "next": f"{instance}-{i + 1}" if i + 1 < count else "",
                    "num_lidar_pts": 3,
                    "num_radar_pts": 0,
                }
            )
