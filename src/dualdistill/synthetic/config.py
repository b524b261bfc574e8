"""Configuration of a synthetic world, in three sizes."""

from dataclasses import dataclass

KEY_FRAME_RATE = 2.0
"""Key frames a second, as nuScenes has."""
CAMERA_RATE = 12.0
"""Camera frames a second, if the frames between key frames are kept."""
FULL_REACH = 55.0
"""Metres up to which objects are annotated."""


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Everything the bytes of a synthetic world depend on; two equal configs give equal bytes."""

    name: str = "custom"
    """Name of the size; also part of the log names in the data set."""
    seed: int = 0
    train_scenes: int = 40
    """Scenes named after official `train` scenes."""
    val_scenes: int = 12
    """Scenes named after official `val` scenes."""
    key_frames: int = 6
    """Key frames of each scene, at 2 Hz."""
    image_width: int = 256
    image_height: int = 144
    """Pixels; 16:9 keeps the field of view of nuScenes, and its cropping recipes."""
    camera_sweeps: bool = False
    """Whether cameras also record between key frames, at 12 Hz."""
    lidar_beams: int = 32
    lidar_azimuths: int = 360
    """Firings of each beam in one revolution."""
    lidar_rate: float = 20.0
    """Revolutions a second, a multiple of 2 Hz."""
    lead_in_sweeps: int = 0
    """LiDAR sweeps before the first key frame of a scene; nuScenes has none."""
    jpeg_quality: int = 90
    reach: float = FULL_REACH
    """Metres ahead of the ego car up to which objects are placed along its road; a small reach makes an easy world, in
    which all objects are near."""

    def __post_init__(self) -> None:
        for field in ("key_frames", "image_width", "image_height", "lidar_beams", "lidar_azimuths"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        for field in ("seed", "train_scenes", "val_scenes", "lead_in_sweeps"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} must not be negative, got {getattr(self, field)}")
        if self.lidar_rate <= 0 or self.lidar_rate % KEY_FRAME_RATE:
            raise ValueError(f"lidar_rate must be a positive multiple of 2 Hz, got {self.lidar_rate}")
        if not 0 < self.reach <= FULL_REACH:
            raise ValueError(f"reach must lie above 0 and be at most {FULL_REACH:g} m, got {self.reach}")
        if not 1 <= self.jpeg_quality <= 95:
            raise ValueError(f"jpeg_quality must lie between 1 and 95, got {self.jpeg_quality}")

    @property
    def sweeps_per_key_frame(self) -> int:
        """LiDAR revolutions from one key frame to the next."""
        return round(self.lidar_rate / KEY_FRAME_RATE)

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
    name="demo",
    seed=300,
    train_scenes=200,
    val_scenes=60,
    key_frames=2,
    lidar_rate=10.0,
    lead_in_sweeps=4,
    reach=16.0,
)
"""An easy world, a minute or two on two cores: all objects are near; 400 key frames to train on, 120 to validate. Many
short scenes teach more than few long ones of the same cost."""

BENCH = SyntheticConfig(name="bench", train_scenes=500, val_scenes=100, key_frames=3, lidar_rate=10.0, lead_in_sweeps=5)
"""The world of the comparisons, some ten minutes: 1,500 key frames to train on, 300 to validate."""
