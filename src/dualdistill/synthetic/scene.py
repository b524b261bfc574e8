"""Recording of a planned scene: the sensor files, and its records of the tables."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from dualdistill.data import tables
from dualdistill.data.tables import links
from dualdistill.geometry.transforms import quaternion_from_rotation
from dualdistill.synthetic.catalogue import attribute
from dualdistill.synthetic.config import CAMERA_RATE, KEY_FRAME_RATE, SyntheticConfig
from dualdistill.synthetic.draw import draw_scene
from dualdistill.synthetic.plan import ScenePlan, scene_generator
from dualdistill.synthetic.raycast import Moment, Stage
from dualdistill.synthetic.rig import Camera, Matrix, draw_rig
from dualdistill.synthetic.sensors import expose, scan

ANNOTATED_RANGE = 55.0
"""Metres from the ego car to the centre of an annotated box."""
FIRST_TIMESTAMP_US = 1_600_000_000_000_000
SCENE_SPACING_US = 600_000_000
"""Time between the starts of two consecutive scenes."""

PlayedScene = tuple[list[tables.Record], list[dict[str, Any]]]
"""Records of a scene whose sensor files are written, and its entries of `masks/instance_masks.json`."""

Job = tuple[SyntheticConfig, str, int, str, Path]
"""Configuration of a world, split, index in it and name of a scene, and root."""


def token(seed: int, *parts: object) -> str:
    """32 hexadecimal digits, the same for the same parts and seed."""
    text = "/".join(str(part) for part in (seed, *parts))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def play_scene(job: Job) -> PlayedScene:
    """Writes all sensor files of a scene below the root (folders must exist)."""
    return _Player(*job).play()


class _Player:
    def __init__(self, config: SyntheticConfig, split: str, index: int, name: str, root: Path):
        self._plan = plan = draw_scene(config, split, index)
        self._config, self._root, self._name = config, root, name
        # A stream of its own: what the sensors draw must not depend on how much the plan drew.
        self._rng = scene_generator(config, split, index).spawn(1)[0]
        self._cameras, self._lidar = draw_rig(config, self._rng)
        self._stage = Stage(plan)
        number = int(name.removeprefix("scene-"))
        self._start_us = FIRST_TIMESTAMP_US + number * SCENE_SPACING_US + int(self._rng.integers(1_000_000))
        self._log = f"synthetic-{config.name}-seed{config.seed}-{name}"
        frames = config.key_frames
        self._samples = [self._token("sample", name, frame) for frame in range(frames)]
        self._masks: list[dict[str, Any]] = []
        self._seen = np.zeros((frames, len(plan.actors)), dtype=bool)
        self._points: list[Float[np.ndarray, "points 3"]] = [np.zeros((0, 3))] * frames

    def _token(self, *parts: object) -> str:
        return token(self._config.seed, *parts)

    def play(self) -> PlayedScene:
        swept = self._scans()
        photographed = [record for camera in self._cameras for record in self._pictures(camera)]
        annotated = self._annotations()
        known = {record.token for record in annotated if isinstance(record, tables.Instance)}
        for each in (instance for mask in self._masks for instance in mask["instances"]):
            if each["instance_token"] not in known:
                each["instance_token"] = ""
        records = [*self._scene(), *self._mounts(), *photographed, *swept, *annotated]
        return records, self._masks

    def _scene(self) -> list[tables.Record]:
        scene, log, samples = self._token("scene", self._name), self._token("log", self._log), self._samples
        place = {"vehicle": "synthetic", "date_captured": "2020-09-13", "location": "synthetic-town"}
        return [
            tables.Log(token=log, logfile=self._log, **place),
            tables.Scene(
                token=scene,
                log_token=log,
                nbr_samples=len(samples),
                first_sample_token=samples[0],
                last_sample_token=samples[-1],
                name=self._name,
                description=self._plan.description,
            ),
            *(
                tables.Sample(
                    token=sample,
                    timestamp=self._time_us(frame / KEY_FRAME_RATE),
                    **links(samples, frame),
                    scene_token=scene,
                )
                for frame, sample in enumerate(samples)
            ),
        ]

    def _mounts(self) -> list[tables.Record]:
        mounts = [(c.channel, c.ego_from_camera, c.intrinsics.tolist()) for c in self._cameras]
        return [
            tables.CalibratedSensor(
                token=self._token("calibrated_sensor", self._name, channel),
                sensor_token=self._token("sensor", channel),
                **_pose(matrix),
                camera_intrinsic=intrinsics,
            )
            for channel, matrix, intrinsics in [*mounts, ("LIDAR_TOP", self._lidar.ego_from_lidar, [])]
        ]

    def _time_us(self, time: float) -> int:
        return self._start_us + round(time * 1e6)

    def _recorded(
        self, channel: str, suffix: str, times: Mapping[int, float], rate: int, size: tuple[int, int] = (0, 0)
    ) -> tuple[list[tables.SampleData], list[tables.EgoPose]]:
        """Records of one sensor, in time order. `times`: seconds after the first key frame of each firing, by its
        number; every `rate`-th is a key frame's. `size`: width and height of an image."""
        names = {}
        for step, time in times.items():
            folder = "sweeps" if step % rate else "samples"
            names[step] = f"{folder}/{channel}/{self._log}__{channel}__{self._time_us(time)}.{suffix}"
        tokens = [self._token("sample_data", name) for name in names.values()]
        data, poses = [], []
        for number, (step, time) in enumerate(times.items()):
            global_from_ego = self._plan.global_from_street() @ self._plan.street_from_ego(time)
            poses.append(tables.EgoPose(token=tokens[number], timestamp=self._time_us(time), **_pose(global_from_ego)))
            data.append(
                tables.SampleData(
                    token=tokens[number],
                    sample_token=self._samples[max(0, -(-step // rate))],
                    ego_pose_token=tokens[number],
                    calibrated_sensor_token=self._token("calibrated_sensor", self._name, channel),
                    timestamp=self._time_us(time),
                    fileformat=suffix.partition(".")[0],
                    is_key_frame=step % rate == 0,
                    height=size[1],
                    width=size[0],
                    filename=names[step],
                    **links(tokens, number),
                )
            )
        return data, poses

    def _scans(self) -> list[tables.Record]:
        config, lidar, rate = self._config, self._lidar, self._config.sweeps_per_key_frame
        steps = range(-config.lead_in_sweeps, (config.key_frames - 1) * rate + 1)
        times = {step: step / config.lidar_rate for step in steps}
        data, poses = self._recorded("LIDAR_TOP", "pcd.bin", times, rate)
        for (step, time), record in zip(times.items(), data, strict=True):
            street_from_lidar = self._plan.street_from_ego(time) @ lidar.ego_from_lidar
            points, owners = scan(
                self._stage.at(time), self._plan, lidar, street_from_lidar, config.lidar_azimuths, self._rng
            )
            points.tofile(self._root / record.filename)
            if record.is_key_frame:
                self._seen[step // rate, owners[owners >= 0]] = True
                xyz = points[:, :3].astype(np.float64)
                self._points[step // rate] = xyz @ street_from_lidar[:3, :3].T + street_from_lidar[:3, 3]
        return [*poses, *data]

    def _pictures(self, camera: Camera) -> list[tables.Record]:
        config = self._config
        rate = round(CAMERA_RATE / KEY_FRAME_RATE)
        steps = range(0, (config.key_frames - 1) * rate + 1, 1 if config.camera_sweeps else rate)
        times = {step: step / CAMERA_RATE + camera.delay for step in steps}
        data, poses = self._recorded(camera.channel, "jpg", times, rate, (camera.width, camera.height))
        for (step, time), record in zip(times.items(), data, strict=True):
            street_from_camera = self._plan.street_from_ego(time) @ camera.ego_from_camera
            pixels, owners = expose(self._stage.at(time), self._plan, camera, street_from_camera, self._rng)
            Image.fromarray(pixels).save(self._root / record.filename, quality=config.jpeg_quality)
            if record.is_key_frame:
                self._mask(record, camera.channel, step // rate, owners)
        return [*poses, *data]

    def _mask(self, image: tables.SampleData, channel: str, frame: int, owners: np.ndarray) -> None:
        actors, positions, counts = np.unique(owners, return_inverse=True, return_counts=True)
        background = int(actors[0] < 0)
        if len(actors) - background > 255:
            raise ValueError(f"a mask holds 255 instances, {image.filename} has {len(actors) - background}")
        codes = (positions.reshape(owners.shape) + 1 - background).astype(np.uint8)
        filename = f"masks/{channel}/{Path(image.filename).stem}.png"
        Image.fromarray(codes).save(self._root / filename)
        shown = actors[background:].tolist()
        self._seen[frame, shown] = True
        instances = [
            {
                "value": value,
                "instance_token": self._token("instance", self._name, actor),
                "category": self._plan.actors[actor].category,
                "pixels": pixels,
            }
            for value, (actor, pixels) in enumerate(zip(shown, counts[background:].tolist(), strict=True), start=1)
        ]
        self._masks.append(
            {
                "sample_token": image.sample_token,
                "sample_data_token": image.token,
                "filename": filename,
                "instances": instances,
            }
        )

    def _annotations(self) -> list[tables.Record]:
        """Every actor from the first key frame in which a sensor saw it to the last, while it is near."""
        plan, records = self._plan, list[tables.Record]()
        times = [frame / KEY_FRAME_RATE for frame in range(self._config.key_frames)]
        middle = np.mean([camera.ego_from_camera[:, 3] for camera in self._cameras], axis=0)  # of the cameras
        eyes = [(plan.street_from_ego(time) @ middle)[:3] for time in times]
        shares = [_visible_shares(self._stage.at(time), plan, eye, time) for time, eye in zip(times, eyes, strict=True)]
        for number, actor in enumerate(plan.actors):
            seen = np.flatnonzero(self._seen[:, number])
            poses = {}
            for frame in range(seen[0], seen[-1] + 1) if len(seen) else ():
                street_from_box = actor.street_from_box(times[frame])
                ego = plan.street_from_ego(times[frame])[:2, 3]
                if np.hypot(*(street_from_box[:2, 3] - ego)) <= ANNOTATED_RANGE:
                    poses[int(frame)] = street_from_box
            if not poses:
                continue
            instance = self._token("instance", self._name, number)
            tokens = [self._token("annotation", self._name, number, frame) for frame in poses]
            name = attribute(actor.category, actor.speed, parked=actor.parked)
            length, width, height = actor.size
            records.append(
                tables.Instance(
                    token=instance,
                    category_token=self._token("category", actor.category),
                    nbr_annotations=len(tokens),
                    first_annotation_token=tokens[0],
                    last_annotation_token=tokens[-1],
                )
            )
            records += [
                tables.SampleAnnotation(
                    token=tokens[position],
                    sample_token=self._samples[frame],
                    instance_token=instance,
                    visibility_token=str(1 + int(np.searchsorted([0.4, 0.6, 0.8], shares[frame][number]))),
                    attribute_tokens=[] if name is None else [self._token("attribute", name)],
                    **_pose(plan.global_from_street() @ street_from_box),
                    size=(width, length, height),
                    **links(tokens, position),
                    num_lidar_pts=count_inside(self._points[frame], street_from_box, actor.size),
                    num_radar_pts=0,
                )
                for position, (frame, street_from_box) in enumerate(poses.items())
            ]
        return records


def _pose(matrix: Matrix) -> dict[str, Any]:
    rotation = quaternion_from_rotation(torch.from_numpy(matrix[:3, :3]))
    return {"translation": matrix[:3, 3].tolist(), "rotation": rotation.tolist()}


def count_inside(
    points: Float[np.ndarray, "points 3"], frame_from_box: Matrix, size: tuple[float, float, float]
) -> int:
    """Number of points in a box (with its border); the points are in the target frame of `frame_from_box`."""
    offsets = points - frame_from_box[:3, 3]
    # Most points are far away: only those near the centre are worth turning into the box frame.
    near = np.abs(offsets[:, 0]) <= np.linalg.norm(size) / 2
    offsets = offsets[near] @ frame_from_box[:3, :3]
    return int((np.abs(offsets) <= np.asarray(size) / 2).all(axis=1).sum())


def _visible_shares(
    moment: Moment, plan: ScenePlan, eye: Float[np.ndarray, "3"], time: float
) -> Float[np.ndarray, "actors"]:
    """About which share of each actor's near side can be seen from `eye`.

    Judged at the middles of its faces. Those hidden by the actor itself do not count; nor does half of those
    hidden by others, since about half of a surface faces away.
    """
    places, owners = [], []
    for number, actor in enumerate(plan.actors):
        matrix = actor.street_from_box(time)
        middles = actor.mesh.triangles.mean(axis=1)
        middles = middles[:: max(1, len(middles) // 60)]
        places.append(middles @ matrix[:3, :3].T + matrix[:3, 3])
        owners.append(np.full(len(middles), number))
    if not places:
        return np.zeros(0)
    place, owner = np.concatenate(places), np.concatenate(owners)
    towards = place - eye
    reach = np.linalg.norm(towards, axis=1)
    hits = moment.cast(eye, (towards / reach[:, None]).astype(np.float32))
    mine = hits.owner == owner
    seen = np.bincount(owner[mine & (hits.distance > reach - 0.05)], minlength=len(plan.actors))
    hidden = np.bincount(owner[~mine & (hits.distance < reach - 0.05)], minlength=len(plan.actors))
    return seen / np.maximum(seen + hidden / 2, 1)
