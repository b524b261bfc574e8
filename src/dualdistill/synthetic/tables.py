"""The 13 tables of nuScenes v1.0 from scene records."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

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
    Visibility,
)
from dualdistill.data.write_tables import TableWriter, links
from dualdistill.geometry.transforms import quaternion_from_rotation
from dualdistill.structures import CAMERAS
from dualdistill.synthetic.catalogue import attribute
from dualdistill.synthetic.rig import Matrix
from dualdistill.synthetic.scene import Observation, Recording, SceneRecord

VERSION = "v1.0-trainval"
MAP_FILE = "maps/synthetic.png"

_PEOPLE = ("adult", "child", "wheelchair", "stroller", "personal_mobility", "police_officer", "construction_worker")
_VEHICLES = ("car", "motorcycle", "bicycle", "bus.bendy", "bus.rigid", "truck", "construction", "emergency.ambulance")
_OBJECTS = ("barrier", "trafficcone", "pushable_pullable", "debris")
CATEGORIES = (
    *(f"human.pedestrian.{name}" for name in _PEOPLE),
    "animal",
    *(f"vehicle.{name}" for name in (*_VEHICLES, "emergency.police", "trailer")),
    *(f"movable_object.{name}" for name in _OBJECTS),
    "static_object.bicycle_rack",
)
"""All of nuScenes' categories, whether they occur here or not."""
ATTRIBUTES = (
    *("vehicle.moving", "vehicle.stopped", "vehicle.parked", "cycle.with_rider", "cycle.without_rider"),
    *("pedestrian.sitting_lying_down", "pedestrian.standing", "pedestrian.moving"),
)
VISIBILITY = ("v0-40", "v40-60", "v60-80", "v80-100")

Row = dict[str, Any]


def write_tables(root: Path, records: Sequence[SceneRecord], seed: int) -> None:
    """Writes `VERSION`/*.json and `masks/instance_masks.json`."""
    with TableWriter(root / VERSION) as tables:
        writer = _Tables(tables, seed)
        for record in records:
            writer.add(record)
        writer.close([record.log for record in records])
    (root / "masks" / "instance_masks.json").write_text(json.dumps(writer.masks, indent=0) + "\n")


class _Tables:
    """Records of scenes, on their way to the tables; instance masks so far."""

    def __init__(self, tables: TableWriter, seed: int):
        self._write, self._seed = tables.write, seed
        self.masks: list[Row] = []
        for name in CATEGORIES:
            self._write(Category(token=self._token("category", name), name=name, description=""))
        for name in ATTRIBUTES:
            self._write(Attribute(token=self._token("attribute", name), name=name, description=""))
        for number, level in enumerate(VISIBILITY, start=1):
            low, high = level.removeprefix("v").split("-")
            text = f"visibility of whole object is between {low} and {high}%"
            self._write(Visibility(token=str(number), level=level, description=text))
        for channel in (*CAMERAS, "LIDAR_TOP"):
            modality = "lidar" if channel == "LIDAR_TOP" else "camera"
            self._write(Sensor(token=self._token("sensor", channel), channel=channel, modality=modality))

    def _token(self, *parts: object) -> str:
        """32 hexadecimal digits, the same for the same parts and seed."""
        text = "/".join(str(part) for part in (self._seed, *parts))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def close(self, logs: Sequence[str]) -> None:
        """The map, which every log shares."""
        tokens = [self._token("log", log) for log in logs]
        self._write(Map(category="semantic_prior", token=self._token("map"), filename=MAP_FILE, log_tokens=tokens))

    def add(self, record: SceneRecord) -> None:
        """All rows of one scene."""
        scene, log = self._token("scene", record.name), self._token("log", record.log)
        samples = [self._token("sample", record.name, frame) for frame in range(len(record.timestamps_us))]
        place = {"vehicle": "synthetic", "date_captured": "2020-09-13", "location": "synthetic-town"}
        self._write(Log(token=log, logfile=record.log, **place))
        self._write(
            Scene(
                token=scene,
                log_token=log,
                nbr_samples=len(samples),
                first_sample_token=samples[0],
                last_sample_token=samples[-1],
                name=record.name,
                description=record.description,
            )
        )
        for number, (token, timestamp_us) in enumerate(zip(samples, record.timestamps_us, strict=True)):
            self._write(Sample(token=token, timestamp=timestamp_us, **links(samples, number), scene_token=scene))
        self._sensors(record)
        for channel in (*CAMERAS, "LIDAR_TOP"):
            self._chain(record.name, [r for r in record.recordings if r.channel == channel], samples)
        for number in range(len(record.actors)):
            seen = [o for o in record.observations if o.actor == number]
            if seen:
                self._instance(record, number, seen, samples)
        self._masks(record, samples)

    def _sensors(self, record: SceneRecord) -> None:
        mounts = [(c.channel, c.ego_from_camera, c.intrinsics.tolist()) for c in record.rig.cameras]
        for channel, matrix, intrinsics in [*mounts, ("LIDAR_TOP", record.rig.lidar.ego_from_lidar, [])]:
            self._write(
                CalibratedSensor(
                    token=self._token("calibrated_sensor", record.name, channel),
                    sensor_token=self._token("sensor", channel),
                    **_pose(matrix),
                    camera_intrinsic=intrinsics,
                )
            )

    def _chain(self, scene: str, recordings: list[Recording], samples: list[str]) -> None:
        """What one sensor recorded in one scene."""
        tokens = [self._token("sample_data", recording.filename) for recording in recordings]
        for number, (token, recording) in enumerate(zip(tokens, recordings, strict=True)):
            width, height = recording.size
            self._write(EgoPose(token=token, timestamp=recording.timestamp_us, **_pose(recording.global_from_ego)))
            self._write(
                SampleData(
                    token=token,
                    sample_token=samples[recording.key_frame],
                    ego_pose_token=token,
                    calibrated_sensor_token=self._token("calibrated_sensor", scene, recording.channel),
                    timestamp=recording.timestamp_us,
                    fileformat="jpg" if width else "pcd",
                    is_key_frame=recording.is_key_frame,
                    height=height,
                    width=width,
                    filename=recording.filename,
                    **links(tokens, number),
                )
            )

    def _instance(self, record: SceneRecord, number: int, seen: list[Observation], samples: list[str]) -> None:
        actor, scene = record.actors[number], record.name
        instance = self._token("instance", scene, number)
        tokens = [self._token("annotation", scene, number, observation.key_frame) for observation in seen]
        name = attribute(actor.category, actor.speed, parked=actor.parked)
        length, width, height = actor.size
        self._write(
            Instance(
                token=instance,
                category_token=self._token("category", actor.category),
                nbr_annotations=len(seen),
                first_annotation_token=tokens[0],
                last_annotation_token=tokens[-1],
            )
        )
        for position, (token, observation) in enumerate(zip(tokens, seen, strict=True)):
            self._write(
                SampleAnnotation(
                    token=token,
                    sample_token=samples[observation.key_frame],
                    instance_token=instance,
                    visibility_token=str(observation.visibility),
                    attribute_tokens=[] if name is None else [self._token("attribute", name)],
                    **_pose(observation.global_from_box),
                    size=(width, length, height),
                    **links(tokens, position),
                    num_lidar_pts=observation.lidar_points,
                    num_radar_pts=0,
                )
            )

    def _masks(self, record: SceneRecord, samples: list[str]) -> None:
        annotated = {observation.actor for observation in record.observations}
        key_frame = {recording.filename: recording.key_frame for recording in record.recordings}
        for mask in record.masks:
            instances = [
                {
                    "value": value,
                    "instance_token": self._token("instance", record.name, actor) if actor in annotated else "",
                    "category": record.actors[actor].category,
                    "pixels": pixels,
                }
                for value, (actor, pixels) in enumerate(zip(mask.actors, mask.pixels, strict=True), start=1)
            ]
            self.masks.append(
                {
                    "sample_token": samples[key_frame[mask.image]],
                    "sample_data_token": self._token("sample_data", mask.image),
                    "filename": mask.filename,
                    "instances": instances,
                }
            )


def _pose(matrix: Matrix) -> Row:
    rotation = quaternion_from_rotation(torch.from_numpy(matrix[:3, :3]))
    return {"translation": matrix[:3, 3].tolist(), "rotation": rotation.tolist()}
