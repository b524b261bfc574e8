"""A scene before anything is rendered: street, things, who moves where, the light of the day."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dualdistill.synthetic.config import SyntheticConfig
from dualdistill.synthetic.mesh import Mesh, Vector
from dualdistill.synthetic.rig import Matrix, pose
from dualdistill.synthetic.street import Curve, GroundPicture, Street

GROUND_CLEARANCE = 0.02
"""Metres from the ground to the bottom of a box: noise must not lift returns from the road into it."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """Uniform motion beside a curve; time 0 is the first key frame."""

    curve: Curve
    length: float
    """Arc length at time 0, metres."""
    offset: float
    """Distance to the left of the curve at time 0, metres."""
    speed: float = 0.0
    """Along the curve, m/s; negative against its direction."""
    drift: float = 0.0
    """Across the curve, to the left, m/s."""
    turn: float = 0.0
    """Heading relative to the curve's, radians."""

    def at(self, time: float) -> tuple[float, float, float]:
        """x, y (metres) and yaw (radians) in the street frame."""
        x, y, yaw = self.poses(np.asarray(time)).tolist()
        return x, y, yaw

    def poses(self, times: Float[np.ndarray, "*times"]) -> Float[np.ndarray, "*times 3"]:
        """x, y (metres) and yaw (radians) at several times, in the street frame."""
        x, y, heading = self.curve.at(self.length + self.speed * times, self.offset + self.drift * times)
        return np.stack([x, y, heading + self.turn], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Somebody or something that is annotated."""

    category: str
    size: Vector
    """Length, width, height, metres."""
    mesh: Mesh
    """Centred in its box."""
    track: Track
    parked: bool
    """Parked or left without a driver or rider."""

    @property
    def speed(self) -> float:
        return float(np.hypot(self.track.speed, self.track.drift))

    def street_from_box(self, time: float) -> Matrix:
        """Pose of its box, whose axes are forward, left, up."""
        x, y, yaw = self.track.at(time)
        return pose((x, y, self.size[2] / 2 + GROUND_CLEARANCE), yaw=yaw)


@dataclass(frozen=True, kw_only=True)
class Prop:
    """Something that stands still and is never annotated."""

    mesh: Mesh
    street_from_prop: Matrix


@dataclass(frozen=True, kw_only=True)
class Daylight:
    sun: Float[np.ndarray, "3"]
    """Unit vector towards the sun."""
    sun_color: Float[np.ndarray, "3"]
    sky_color: Float[np.ndarray, "3"]
    """Colour at the zenith; also that of the ambient light."""
    horizon_color: Float[np.ndarray, "3"]
    haze: float
    """Metres after which haze has taken 63 % of the contrast."""
    exposure: float


@dataclass(frozen=True, kw_only=True)
class Sway:
    """Pitch and roll of the moving car: slow sines, radians."""

    amplitude: Float[np.ndarray, "2"]
    frequency: Float[np.ndarray, "2"]
    phase: Float[np.ndarray, "2"]

    def at(self, time: float) -> tuple[float, float]:
        pitch, roll = self.amplitude * np.sin(2 * np.pi * self.frequency * time + self.phase)
        return float(pitch), float(roll)


@dataclass(frozen=True, kw_only=True)
class ScenePlan:
    """Frames: the *street* frame is the global one moved so that the ego car starts near its origin."""

    street: Street
    ground: GroundPicture
    terrain: tuple[float, float, float]
    """Colour of what is neither road nor pavement."""
    actors: tuple[Actor, ...]
    props: tuple[Prop, ...]
    daylight: Daylight
    ego: Track
    sway: Sway
    origin: tuple[float, float]
    """Origin of the street frame in the global frame, metres."""
    description: str

    def street_from_ego(self, time: float) -> Matrix:
        x, y, yaw = self.ego.at(time)
        pitch, roll = self.sway.at(time)
        return pose((x, y, 0.0), yaw=yaw, pitch=pitch, roll=roll)

    def global_from_street(self) -> Matrix:
        return pose((*self.origin, 0.0), yaw=0.0)


def scene_generator(config: SyntheticConfig, split: str, index: int) -> np.random.Generator:
    """The only source of chance of one scene: no other scene of either split draws from it."""
    return np.random.default_rng([config.seed, ("train", "val").index(split), index])
