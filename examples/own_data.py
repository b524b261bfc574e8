"""Your own drives as a nuScenes root that every command reads: python own_data.py ROOT

`Frame` is what you know of one annotated moment; `write_root` makes the tables of it. The drive below is made up (flat
images, random points): fill `Frame` from your own logs instead.
"""

import json
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dualdistill.data import tables
from dualdistill.data.tables import TableWriter, links
from dualdistill.geometry.transforms import quaternion_from_rotation
from dualdistill.structures import CAMERAS

Matrix = np.ndarray
"""4x4: a rotation and a translation in metres."""


@dataclass
class Mount:
    """A sensor on the car; cameras have intrinsics (3x3, pixels) and an image size (height, width)."""

    ego_from_sensor: Matrix
    intrinsics: np.ndarray | None = None
    image_size: tuple[int, int] | None = None


@dataclass
class Box:
    """An annotated object: one of nuScenes' categories, such as "vehicle.car"."""

    track: str
    """The same for one object in all frames of a drive."""
    category: str
    global_from_box: Matrix
    """Its centre and heading (x forward, y left, z up)."""
    width_length_height: tuple[float, float, float]
    lidar_points: int = 1
    """Points inside; boxes of none neither train nor count."""


@dataclass
class Frame:
    """One annotated moment of a drive."""

    timestamp_us: int
    global_from_ego: Matrix
    files: dict[str, str]
    """For each sensor its file, relative to the root: images, and points as float32 x, y, z, intensity, ring."""
    boxes: list[Box] = field(default_factory=list)


def write_root(
    root: Path, drives: dict[str, list[Frame]], mounts: dict[str, Mount], splits: dict[str, list[str]]
) -> None:
    """Write the tables of all drives, by name, and which drives are for training ("train") and validation ("val")."""
    with TableWriter(root / "v1.0-trainval") as out:
        for name, mount in mounts.items():
            out.write(tables.Sensor(token=name, channel=name, modality="lidar" if "LIDAR" in name else "camera"))
            intrinsics = [] if mount.intrinsics is None else mount.intrinsics.tolist()
            pose = _pose(mount.ego_from_sensor)
            out.write(tables.CalibratedSensor(token=name, sensor_token=name, camera_intrinsic=intrinsics, **pose))
        for category in {box.category for frames in drives.values() for frame in frames for box in frame.boxes}:
            out.write(tables.Category(token=category, name=category))
        out.write(tables.Visibility(token="4", level="v80-100"))
        out.write(tables.Log(token="log"))
        for name, frames in drives.items():
            _write_drive(out, name, frames, mounts)
    (root / "v1.0-trainval" / "splits.json").write_text(json.dumps(splits))


def _write_drive(out: TableWriter, drive: str, frames: list[Frame], mounts: dict[str, Mount]) -> None:
    samples = [f"{drive}-{number}" for number in range(len(frames))]
    out.write(tables.Scene(token=drive, name=drive, log_token="log", nbr_samples=len(samples)))
    tracks: dict[str, list[int]] = defaultdict(list)  # frames that show an object
    for i, (token, frame) in enumerate(zip(samples, frames, strict=True)):
        when = frame.timestamp_us
        out.write(tables.Sample(token=token, timestamp=when, scene_token=drive, **links(samples, i)))
        out.write(tables.EgoPose(token=token, timestamp=when, **_pose(frame.global_from_ego)))
        for name, mount in mounts.items():
            height, width = mount.image_size or (None, None)
            chain = [f"{sample}-{name}" for sample in samples]
            out.write(
                tables.SampleData(
                    token=chain[i],
                    sample_token=token,
                    ego_pose_token=token,
                    calibrated_sensor_token=name,
                    timestamp=when,
                    is_key_frame=True,
                    height=height,
                    width=width,
                    filename=frame.files[name],
                    **links(chain, i),
                )
            )
        for box in frame.boxes:
            tracks[box.track].append(i)
    for track, shown in tracks.items():
        boxes = [next(box for box in frames[i].boxes if box.track == track) for i in shown]
        chain = [f"{samples[i]}-{track}" for i in shown]
        instance = f"{drive}-{track}"
        out.write(
            tables.Instance(
                token=instance,
                category_token=boxes[0].category,
                nbr_annotations=len(chain),
                first_annotation_token=chain[0],
                last_annotation_token=chain[-1],
            )
        )
        for j, (i, box) in enumerate(zip(shown, boxes, strict=True)):
            out.write(
                tables.SampleAnnotation(
                    token=chain[j],
                    sample_token=samples[i],
                    instance_token=instance,
                    visibility_token="4",
                    attribute_tokens=[],
                    size=box.width_length_height,
                    num_lidar_pts=box.lidar_points,
                    num_radar_pts=0,
                    **_pose(box.global_from_box),
                    **links(chain, j),
                )
            )


def _pose(matrix: Matrix) -> dict[str, list[float]]:
    rotation = quaternion_from_rotation(torch.from_numpy(matrix[:3, :3]))
    return {"translation": matrix[:3, 3].tolist(), "rotation": rotation.tolist()}


def _turned(degrees: float, *translation: float) -> Matrix:
    """A rotation about z with a translation."""
    matrix, angle = np.eye(4), np.radians(degrees)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = translation
    return matrix


def made_up_drive(root: Path, name: str, count: int, size: tuple[int, int]) -> list[Frame]:
    """A car that follows another one, two frames a second."""
    frames = []
    for i in range(count):
        files = {channel: f"samples/{channel}/{name}-{i}.jpg" for channel in CAMERAS}
        files["LIDAR_TOP"] = f"samples/LIDAR_TOP/{name}-{i}.bin"
        for channel, file in files.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            if channel != "LIDAR_TOP":
                Image.new("RGB", size[::-1], (90, 100, 110)).save(root / file)
        points = np.random.default_rng(i).uniform([-20, -20, -2, 0, 0], [20, 20, 2, 255, 31], (500, 5))
        points[:, 4] = points[:, 4].round()  # the ring
        points.astype(np.float32).tofile(root / files["LIDAR_TOP"])
        ahead = Box("leader", "vehicle.car", _turned(0, 5.0 * i + 12, 0, 0.8), (1.9, 4.6, 1.6), lidar_points=30)
        frames.append(Frame(1_700_000_000_000_000 + 500_000 * i, _turned(0, 5.0 * i, 0, 0), files, [ahead]))
    return frames


if __name__ == "__main__":
    root, size = Path(sys.argv[1]), (90, 160)
    camera_axes = np.array(
        [[0, 0, 1.0, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.6], [0, 0, 0, 1]]
    )  # forward is the camera's z
    angles = dict(zip(CAMERAS, (55, 0, -55, 110, 180, -110), strict=True))
    intrinsics = np.array([[120.0, 0, 80], [0, 120, 45], [0, 0, 1]])
    mounts = {name: Mount(_turned(angle, 0, 0, 0) @ camera_axes, intrinsics, size) for name, angle in angles.items()}
    mounts["LIDAR_TOP"] = Mount(_turned(-90, 0.9, 0, 1.8))
    drives = {name: made_up_drive(root, name, 4, size) for name in ("monday", "tuesday")}
    write_root(root, drives, mounts, {"train": ["monday"], "val": ["tuesday"]})
    print(f"wrote {root}: dualdistill data check {root}")
