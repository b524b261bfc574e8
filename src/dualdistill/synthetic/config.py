"""Configuration of a synthetic world, in three sizes."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from dualdistill.settings import Count, Few, Natural, Positive, Side, checked

KEY_FRAME_RATE = 2.0
"""Key frames a second, as nuScenes has."""
CAMERA_RATE = 12.0
"""Camera frames a second, if the frames between key frames are kept."""
FULL_REACH = 55.0
"""Metres up to which objects are annotated."""


@dataclass(frozen=True, kw_only=True)
@checked
class SyntheticConfig:
    """Everything the bytes of a synthetic world depend on; two equal configs give equal bytes."""

    name: str = "custom"
    """Name of the size; also part of the log names in the data set."""
    seed: Natural = 0
    train_scenes: Natural = 40
    """Scenes named after official `train` scenes."""
    val_scenes: Natural = 12
    """Scenes named after official `val` scenes."""
    key_frames: Count = 6
    """Key frames of each scene, at 2 Hz."""
    image_width: Side = 256
    image_height: Side = 144
    """Pixels; 16:9 keeps the field of view of nuScenes, and its cropping recipes."""
    camera_sweeps: bool = False
    """Whether cameras also record between key frames, at 12 Hz."""
    lidar_beams: Few = 32
    lidar_azimuths: Count = 360
    """Firings of each beam in one revolution."""
    lidar_rate: Positive = 20.0
    """Revolutions a second, a multiple of 2 Hz."""
    lead_in_sweeps: Natural = 0
    """LiDAR sweeps before the first key frame of a scene; nuScenes has none."""
    jpeg_quality: Annotated[int, Meta(ge=1, le=95)] = 90
    reach: Annotated[float, Meta(gt=0, le=FULL_REACH)] = FULL_REACH
    """Metres ahead of the ego car up to which objects are placed along its road; a small reach makes an easy world, in
    which all objects are near."""

    def __post_init__(self) -> None:
        if self.lidar_rate % KEY_FRAME_RATE:
            raise ValueError(f"lidar_rate must be a multiple of 2 Hz, got {self.lidar_rate}")

    @property
    def sweeps_per_key_frame(self) -> int:
        """LiDAR revolutions from one key frame to the next."""
        return round(self.lidar_rate / KEY_FRAME_RATE)

    @property
    def num_bytes(self) -> int:
        """About how large the world will be on the disk."""
        pixels = 6 * self.image_width * self.image_height * (6 if self.camera_sweeps else 1)
        points = self.sweeps_per_key_frame * self.lidar_beams * self.lidar_azimuths
        return (self.train_scenes + self.val_scenes) * self.key_frames * (pixels // 2 + 20 * points)

    @property
    def duration(self) -> float:
        """Seconds from the first key frame of a scene to the last."""
        return (self.key_frames - 1) / KEY_FRAME_RATE


TINY = SyntheticConfig(
    name="tiny",
    train_scenes=2,
    val_scenes=1,
    key_frames=3,
    image_width=96,
    image_height=54,
    lidar_azimuths=120,
    lidar_rate=10.0,
)
"""A world for tests, made in seconds."""

DEMO = SyntheticConfig(
    name="demo", seed=300, train_scenes=200, val_scenes=60, key_frames=2, lidar_rate=10.0, lead_in_sweeps=4, reach=16.0
)
"""An easy world, a minute or two on two cores: all objects are near; 400 key frames to train on, 120 to validate. Many
short scenes teach more than few long ones of the same cost."""

BENCH = SyntheticConfig(name="bench", train_scenes=500, val_scenes=100, key_frames=3, lidar_rate=10.0, lead_in_sweeps=5)
"""The world of the comparisons, some ten minutes: 1,500 key frames to train on, 300 to validate."""
