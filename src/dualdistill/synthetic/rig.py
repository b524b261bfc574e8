"""The car's sensors: poses, firing times and fields of view.

A rig like nuScenes': six cameras around the roof, one spinning LiDAR on it. Poses are float64 4x4 matrices in
NumPy, named `target_from_source`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32

from dualdistill.structures import CAMERAS
from dualdistill.synthetic.config import SyntheticConfig

Matrix = Float[np.ndarray, "4 4"]

_CAMERA_MOUNTS = {
    "CAM_FRONT_LEFT": (1.55, 0.5, 1.51, 55.0, 0.76, -0.042),
    "CAM_FRONT": (1.7, 0.0, 1.51, 0.0, 0.76, -0.034),
    "CAM_FRONT_RIGHT": (1.55, -0.5, 1.51, -55.0, 0.76, -0.026),
    "CAM_BACK_LEFT": (1.05, 0.48, 1.56, 110.0, 0.76, -0.002),
    "CAM_BACK": (0.05, 0.0, 1.56, 180.0, 0.5, -0.01),
    "CAM_BACK_RIGHT": (1.05, -0.48, 1.56, -110.0, 0.76, -0.018),
}
"""x, y, z in the ego frame (m), viewing direction (degrees left of straight ahead), focal length over image
width, seconds between the camera's exposure and the LiDAR revolution it belongs to."""
_LIDAR_MOUNT = (0.94, 0.0, 1.84)
_EGO_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Axes of a camera that points straight ahead: z forward, x right, y down."""


def pose(translation: tuple[float, float, float], *, yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Matrix:
    """Roll about x, then pitch about y, then yaw about z (radians), then the translation."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    x, y, z = translation
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr, x],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr, y],
            [-sp, cp * sr, cp * cr, z],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


@dataclass(frozen=True)
class Camera:
    channel: str
    ego_from_camera: Matrix
    intrinsics: Float[np.ndarray, "3 3"]
    width: int
    height: int
    delay: float
    """Seconds from the LiDAR revolution to the exposure; negative."""

    @cached_property
    def rays(self) -> Float32[np.ndarray, "pixels 3"]:
        """Unit directions through the pixel centres, row by row, camera frame."""
        u, v = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        x = (u - self.intrinsics[0, 2]) / self.intrinsics[0, 0]
        y = (v - self.intrinsics[1, 2]) / self.intrinsics[1, 1]
        directions = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return directions.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Lidar:
    ego_from_lidar: Matrix
    elevations: Float[np.ndarray, "beams"]
    """Radians above the horizon, from ring 0 up."""


def draw_rig(config: SyntheticConfig, rng: np.random.Generator) -> tuple[list[Camera], Lidar]:
    """The cameras, in the order of `CAMERAS`, and the LiDAR as calibrated on one day: every scene's differ a little."""

    def tilt(degrees: float) -> dict[str, float]:
        return dict(zip(("yaw", "pitch", "roll"), np.radians(rng.normal(0.0, degrees, 3)), strict=True))

    width, height = config.image_width, config.image_height
    cameras = []
    for channel in CAMERAS:
        x, y, z, direction, focal, delay = _CAMERA_MOUNTS[channel]
        ego_from_camera = pose((x, y, z), yaw=np.radians(direction)) @ pose((0.0, 0.0, 0.0), **tilt(0.4))
        ego_from_camera[:3, :3] = ego_from_camera[:3, :3] @ _EGO_FROM_OPTICAL
        ego_from_camera[:3, 3] += rng.normal(0.0, 0.01, 3)
        focal_pixels = focal * width * rng.uniform(0.99, 1.01)
        center = (width * (0.5 + rng.normal(0, 0.006)), height * (0.5 + rng.normal(0, 0.01)))
        intrinsics = np.array([[focal_pixels, 0, center[0]], [0, focal_pixels, center[1]], [0, 0, 1.0]])
        cameras.append(Camera(channel, ego_from_camera, intrinsics, width=width, height=height, delay=delay))
    ego_from_lidar = pose(_LIDAR_MOUNT, yaw=-np.pi / 2) @ pose((0.0, 0.0, 0.0), **tilt(0.3))
    ego_from_lidar[:3, 3] += rng.normal(0.0, 0.01, 3)
    elevations = np.radians(np.linspace(-30.0, 10.0, config.lidar_beams) + rng.normal(0.0, 0.05, config.lidar_beams))
    return cameras, Lidar(ego_from_lidar=ego_from_lidar, elevations=elevations)
