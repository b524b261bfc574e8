"""Calibration of a user's own cameras: a small JSON file, read for a student and written beside an export.

    {"image_size": [900, 1600],
     "cameras": [{"name": "CAM_FRONT", "intrinsics": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]],
                  "lidar_from_camera": [[...], [...], [...], [0, 0, 0, 1]]}, ...],
     "ego_from_lidar": [[...], ...]}

Sizes in pixels (height, width) of the stored images, in which the intrinsics are given; poses in metres, camera axes x
right, y down, z forward. Each camera has `lidar_from_camera` or `ego_from_camera`; `ego_from_lidar` is needed where the
student works in the other of the two frames.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dualdistill.data.augment import draw_view
from dualdistill.data.config import DataConfig
from dualdistill.data.frames import STAND_IN_GAP
from dualdistill.data.images import load_image
from dualdistill.data.plausible import LARGEST_SIDE, good_matrices, good_principal_points, good_sizes
from dualdistill.errors import UserError
from dualdistill.files import read_bytes, write_json
from dualdistill.structures import CAMERAS, Batch, Boxes, Cameras, SampleMeta

Frame = Literal["lidar", "ego"]
MAX_CAMERAS = 64
MAX_MOUNTING = 100.0
"""Metres from the frame's origin."""
_Row3 = tuple[float, float, float]
_Row4 = tuple[float, float, float, float]
_Pose = tuple[_Row4, _Row4, _Row4, _Row4]


class _Camera(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    intrinsics: tuple[_Row3, _Row3, _Row3]
    lidar_from_camera: _Pose | None = None
    ego_from_camera: _Pose | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    image_size: tuple[int, int]
    cameras: list[_Camera]
    ego_from_lidar: _Pose | None = None


@dataclass(frozen=True, kw_only=True)
class Rig:
    """Cameras around a car, in the BEV frame of a student."""

    names: tuple[str, ...]
    image_size: tuple[int, int]
    """Height and width of the stored images, pixels."""
    frame: Frame
    intrinsics: Float[Tensor, "cam 3 3"]
    bev_from_camera: Float[Tensor, "cam 4 4"]

    @classmethod
    def read(cls, path: Path, frame: Frame) -> "Rig":
        """The rig of a JSON file, its poses transformed to `frame`.

        Raises:
            UserError: for a file that is missing, not of that form, or that does not lead to the frame.
        """
        try:
            file = msgspec.json.decode(read_bytes(path), type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UserError(f"{path} is not a calibration file ({error}); docs/export.md shows the form") from error
        _require_plausible(file, path)
        return cls(
            names=tuple(camera.name for camera in file.cameras),
            image_size=file.image_size,
            frame=frame,
            intrinsics=torch.tensor([camera.intrinsics for camera in file.cameras], dtype=torch.float64),
            bev_from_camera=torch.stack([_pose(camera, frame, file.ego_from_lidar, path) for camera in file.cameras]),
        )

    @classmethod
    def of(cls, batch: Batch, image_size: tuple[int, int], frame: Frame) -> "Rig":
        """The rig of one sample: poses of the key frame, the car's motion between exposures included."""
        assert batch.cameras is not None
        return cls(
            names=CAMERAS,
            image_size=image_size,
            frame=frame,
            intrinsics=batch.cameras.intrinsics[0, 0],
            bev_from_camera=batch.cameras.bev_from_camera[0, 0],
        )

    def write(self, path: Path) -> None:
        """Write the rig as a file for `read`."""
        cameras = [
            _Camera(name=name, intrinsics=k.tolist(), **{f"{self.frame}_from_camera": pose.tolist()})
            for name, k, pose in zip(self.names, self.intrinsics.double(), self.bev_from_camera.double(), strict=True)
        ]
        plain = msgspec.to_builtins(_File(image_size=self.image_size, cameras=cameras))
        write_json(path, plain)

    def load(self, images: list[Path], config: DataConfig) -> UInt8[Tensor, "cam 3 h w"]:
        """Image files, one a camera in the rig's order, as inputs of the network.

        Raises:
            UserError: for another number of files than cameras, and for files that are not such images.
        """
        if len(images) != len(self.names):
            raise UserError(
                f"the calibration describes {len(self.names)} cameras ({', '.join(self.names)}): "
                f"expected one image each, in that order, got {len(images)}"
            )
        view = draw_view(config.image_augmentation, config.image_size, self.image_size, None)
        given = "the calibration file"
        loaded = [load_image(p, view, self.image_size, draft=config.draft_decoding, source=given) for p in images]
        return torch.stack(loaded)

    def batch(self, images: UInt8[Tensor, "frame cam 3 h w"], config: DataConfig) -> Batch:
        """One sample of a car at rest, without annotations."""
        frames, count = images.shape[:2]
        view = draw_view(config.image_augmentation, config.image_size, self.image_size, None)
        cameras = Cameras(
            images=images[None],
            intrinsics=self.intrinsics.float().expand(1, frames, count, 3, 3),
            augmented_from_image=view.matrix().expand(1, frames, count, 4, 4),
            bev_from_camera=self.bev_from_camera.float().expand(1, frames, count, 4, 4),
            previous_from_current=torch.eye(4)[None],
            frame_gap=torch.tensor([STAND_IN_GAP]),
        )
        nowhere = torch.eye(4, dtype=torch.float64)
        meta = SampleMeta(token="", timestamp_us=0, global_from_bev=nowhere, ego_from_bev=nowhere)
        return Batch(boxes=(Boxes.empty(),), augmented_from_bev=torch.eye(4)[None], meta=(meta,), cameras=cameras)


def _require_plausible(file: _File, path: Path) -> None:
    """Check what no camera on a car can have; see `data.plausible`.

    Raises:
        UserError: naming the first camera that has it.
    """
    names = [camera.name for camera in file.cameras]
    if not 1 <= len(set(names)) == len(names) <= MAX_CAMERAS:
        raise UserError(f"{path} must describe 1 to {MAX_CAMERAS} cameras of different names, got {names[:20]}")
    size = np.array([file.image_size] * len(names))
    intrinsics = np.array([camera.intrinsics for camera in file.cameras])
    for good, expected, given in (
        (good_sizes(size), f"an image_size of 1 to {LARGEST_SIDE} pixels", file.image_size),
        (good_matrices(intrinsics), "intrinsics with positive focal lengths and the last row 0, 0, 1", intrinsics),
        (good_principal_points(intrinsics, size), "a principal point inside the image", intrinsics),
    ):
        if not good.all():
            at = int(np.flatnonzero(~good)[0])
            came = given[at].tolist() if isinstance(given, np.ndarray) else list(given)
            raise UserError(f"{path}: camera {names[at]!r} needs {expected}, got {came}")
    poses = {"ego_from_lidar": file.ego_from_lidar}
    for camera in file.cameras:
        poses |= {f"{camera.name}: {f}_from_camera": getattr(camera, f"{f}_from_camera") for f in ("lidar", "ego")}
    for name, pose in poses.items():
        if pose is not None and not _is_pose(torch.tensor(pose, dtype=torch.float64)):
            raise UserError(
                f"{path}: {name} is no pose: expected a rotation (right-handed axes), a translation below "
                f"{MAX_MOUNTING:g} m and the last row 0, 0, 0, 1, got {list(map(list, pose))}"
            )


def _is_pose(pose: Float[Tensor, "4 4"]) -> bool:
    rotation, last = pose[:3, :3], pose.new_tensor([0.0, 0.0, 0.0, 1.0])
    orthogonal = (rotation @ rotation.mT - torch.eye(3, dtype=pose.dtype)).abs().max() < 1e-3
    near = pose[:3, 3].abs().max() < MAX_MOUNTING
    return bool(orthogonal & (torch.linalg.det(rotation) > 0) & near & (pose[3] == last).all())


def _pose(camera: _Camera, frame: Frame, ego_from_lidar: _Pose | None, path: Path) -> Float[Tensor, "4 4"]:
    """`frame`_from_camera, a rotation and a translation."""
    given = {"lidar": camera.lidar_from_camera, "ego": camera.ego_from_camera}
    other: Frame = "ego" if frame == "lidar" else "lidar"
    if given[frame] is not None:
        pose = torch.tensor(given[frame], dtype=torch.float64)
    elif given[other] is None:
        raise UserError(f"{path}: {camera.name} has neither lidar_from_camera nor ego_from_camera")
    elif ego_from_lidar is None:
        raise UserError(
            f"{path} gives {other}_from_camera of {camera.name}, but this student works in the {frame} frame: "
            f"give {frame}_from_camera, or ego_from_lidar beside it"
        )
    else:
        link = torch.tensor(ego_from_lidar, dtype=torch.float64)
        frame_from_other = link if frame == "ego" else torch.linalg.inv(link)
        pose = frame_from_other @ torch.tensor(given[other], dtype=torch.float64)
    return pose
