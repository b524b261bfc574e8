"""Recording of a planned scene: the sensor files, and the facts for the tables."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from dualdistill.synthetic.camera import expose
from dualdistill.synthetic.config import CAMERA_RATE, KEY_FRAME_RATE, SyntheticConfig
from dualdistill.synthetic.draw import draw_scene
from dualdistill.synthetic.lidar import scan
from dualdistill.synthetic.plan import Actor, ScenePlan, scene_generator
from dualdistill.synthetic.raycast import Moment, Stage
from dualdistill.synthetic.rig import Camera, Matrix, Rig, draw_rig

ANNOTATED_RANGE = 55.0
"""Metres from the ego car to the centre of an annotated box."""
FIRST_TIMESTAMP_US = 1_600_000_000_000_000
SCENE_SPACING_US = 600_000_000
"""Time between the starts of two consecutive scenes."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One file of one sensor."""

    channel: str
    filename: str
    """Relative to the root."""
    timestamp_us: int
    key_frame: int
    """The key frame it is, or the next one after it."""
    is_key_frame: bool
    global_from_ego: Matrix
    size: tuple[int, int]
    """Width and height of an image; (0, 0) for a LiDAR sweep."""


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Instances in one key frame image."""

    image: str
    """File name of the image, relative to the root."""
    filename: str
    actors: tuple[int, ...]
    """Actors of the pixel values: k is `actors[k - 1]`; 0 is background."""
    pixels: tuple[int, ...]
    """Number of pixels of each actor."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One actor at one key frame, annotated."""

    actor: int
    key_frame: int
    global_from_box: Matrix
    visibility: int
    """1 to 4, as in nuScenes."""
    lidar_points: int


@dataclass(frozen=True, kw_only=True)
class SceneRecord:
    """The facts of a scene for the tables."""

    name: str
    log: str
    description: str
    rig: Rig
    actors: tuple[Actor, ...]
    timestamps_us: tuple[int, ...]
    """Timestamps of the key frames, microseconds."""
    recordings: tuple[Recording, ...]
    """Recordings by channel, in time order."""
    masks: tuple[Mask, ...]
    observations: tuple[Observation, ...]
    """Observations by actor, in time order."""


def play_scene(config: SyntheticConfig, split: str, index: int, name: str, root: Path) -> SceneRecord:
    """Writes all sensor files of scene `index` of `split` below `root` (folders must exist)."""
    plan = draw_scene(config, split, index)
    return _Player(config, plan, split, index, name, root).play()


class _Player:
    def __init__(self, config: SyntheticConfig, plan: ScenePlan, split: str, index: int, name: str, root: Path):
        self._config, self._plan, self._root, self._name = config, plan, root, name
        # A stream of its own: what the sensors draw must not depend on how much the plan drew.
        self._rng = scene_generator(config, split, index).spawn(1)[0]
        self._rig = draw_rig(config, self._rng)
        self._stage = Stage(plan)
        number = int(name.removeprefix("scene-"))
        self._start_us = FIRST_TIMESTAMP_US + number * SCENE_SPACING_US + int(self._rng.integers(1_000_000))
        self._log = f"synthetic-{config.name}-seed{config.seed}-{name}"
        self._recordings: list[Recording] = []
        self._masks: list[Mask] = []
        frames = config.key_frames
        self._seen = np.zeros((frames, len(plan.actors)), dtype=bool)
        self._points: list[Float[np.ndarray, "points 3"]] = [np.zeros((0, 3))] * frames

    def play(self) -> SceneRecord:
        self._lidar()
        for camera in self._rig.cameras:
            self._camera(camera)
        return SceneRecord(
            name=self._name,
            log=self._log,
            description=self._plan.description,
            rig=self._rig,
            actors=self._plan.actors,
            timestamps_us=tuple(self._time_us(k / KEY_FRAME_RATE) for k in range(self._config.key_frames)),
            recordings=tuple(self._recordings),
            masks=tuple(self._masks),
            observations=tuple(self._observations()),
        )

    def _time_us(self, time: float) -> int:
        return self._start_us + round(time * 1e6)

    def _record(
        self, channel: str, suffix: str, time: float, steps: int, rate: int, size: tuple[int, int]
    ) -> Recording:
        """Enters the recording `steps` firings after the first key frame, of `rate` firings a key frame."""
        is_key_frame = steps % rate == 0
        timestamp_us = self._time_us(time)
        folder = "samples" if is_key_frame else "sweeps"
        recording = Recording(
            channel=channel,
            filename=f"{folder}/{channel}/{self._log}__{channel}__{timestamp_us}.{suffix}",
            timestamp_us=timestamp_us,
            key_frame=max(0, -(-steps // rate)),
            is_key_frame=is_key_frame,
            global_from_ego=self._plan.global_from_street() @ self._plan.street_from_ego(time),
            size=size,
        )
        self._recordings.append(recording)
        return recording

    def _lidar(self) -> None:
        config, lidar, rate = self._config, self._rig.lidar, self._config.sweeps_per_key_frame
        for step in range(-config.lead_in_sweeps, (config.key_frames - 1) * rate + 1):
            time = step / config.lidar_rate
            recording = self._record(lidar.channel, "pcd.bin", time, step, rate, (0, 0))
            street_from_lidar = self._plan.street_from_ego(time) @ lidar.ego_from_lidar
            points, owners = scan(
                self._stage.at(time), self._plan, lidar, street_from_lidar, config.lidar_azimuths, self._rng
            )
            points.tofile(self._root / recording.filename)
            if recording.is_key_frame:
                self._seen[recording.key_frame, owners[owners >= 0]] = True
                xyz = points[:, :3].astype(np.float64)
                self._points[recording.key_frame] = xyz @ street_from_lidar[:3, :3].T + street_from_lidar[:3, 3]

    def _camera(self, camera: Camera) -> None:
        config = self._config
        rate = round(CAMERA_RATE / KEY_FRAME_RATE)
        steps = range(0, (config.key_frames - 1) * rate + 1, 1 if config.camera_sweeps else rate)
        for step in steps:
            time = step / CAMERA_RATE + camera.delay
            recording = self._record(camera.channel, "jpg", time, step, rate, (camera.width, camera.height))
            street_from_camera = self._plan.street_from_ego(time) @ camera.ego_from_camera
            pixels, owners = expose(self._stage.at(time), self._plan, camera, street_from_camera, self._rng)
            Image.fromarray(pixels).save(self._root / recording.filename, quality=config.jpeg_quality)
            if recording.is_key_frame:
                self._mask(recording, owners)

    def _mask(self, recording: Recording, owners: np.ndarray) -> None:
        actors, positions, counts = np.unique(owners, return_inverse=True, return_counts=True)
        background = int(actors[0] < 0)
        if len(actors) - background > 255:
            raise ValueError(f"a mask holds 255 instances, {recording.filename} has {len(actors) - background}")
        codes = (positions.reshape(owners.shape) + 1 - background).astype(np.uint8)
        filename = f"masks/{recording.channel}/{Path(recording.filename).stem}.png"
        Image.fromarray(codes).save(self._root / filename)
        self._seen[recording.key_frame, actors[background:]] = True
        self._masks.append(
            Mask(
                image=recording.filename,
                filename=filename,
                actors=tuple(actors[background:].tolist()),
                pixels=tuple(counts[background:].tolist()),
            )
        )

    def _observations(self) -> list[Observation]:
        """Every actor from the first key frame in which a sensor saw it to the last, while it is near."""
        plan, frames = self._plan, range(self._config.key_frames)
        times = [frame / KEY_FRAME_RATE for frame in frames]
        shares = [_visible_shares(self._stage.at(time), plan, self._eye(time), time) for time in times]
        observations = []
        for number, actor in enumerate(plan.actors):
            seen = np.flatnonzero(self._seen[:, number])
            for frame in range(seen[0], seen[-1] + 1) if len(seen) else ():
                street_from_box = actor.street_from_box(times[frame])
                ego = plan.street_from_ego(times[frame])[:2, 3]
                if np.hypot(*(street_from_box[:2, 3] - ego)) > ANNOTATED_RANGE:
                    continue
                observations.append(
                    Observation(
                        actor=number,
                        key_frame=int(frame),
                        global_from_box=plan.global_from_street() @ street_from_box,
                        visibility=1 + int(np.searchsorted([0.4, 0.6, 0.8], shares[frame][number])),
                        lidar_points=count_inside(self._points[frame], street_from_box, actor.size),
                    )
                )
        return observations

    def _eye(self, time: float) -> Float[np.ndarray, "3"]:
        """Point between the cameras, from which visibility is determined."""
        middle = np.mean([camera.ego_from_camera[:, 3] for camera in self._rig.cameras], axis=0)
        return (self._plan.street_from_ego(time) @ middle)[:3]


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
