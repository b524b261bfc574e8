"""Calibration of a user's own cameras: a small JSON file, read for a student and written beside an export
(docs/export.md#predicting-boxes)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dualdistill.data.augment import apply_view, draw_view
from dualdistill.data.config import DataConfig
from dualdistill.data.images import load_image
from dualdistill.data.plausible import (
    FARTHEST_MOUNTING,
    LARGEST_SIDE,
    MATRIX,
    good_matrices,
    good_mountings,
    good_principal_points,
    good_sizes,
)
from dualdistill.data.sweeps import STAND_IN_GAP
from dualdistill.errors import UserError
from dualdistill.files import is_name, read_bytes, write_json
from dualdistill.settings import require
from dualdistill.structures import CAMERAS, Batch, Boxes, Cameras, SampleMeta

Frame = Literal["lidar", "ego"]
Images = Sequence[np.ndarray | Tensor] | np.ndarray | Tensor
"""One image a camera, uint8 [height, width, 3], RGB."""
MAX_CAMERAS = 64
NO_POSE = (
    f"must be a rotation (right-handed axes), a translation below {FARTHEST_MOUNTING:g} m and the last row 0, 0, 0, 1"
)
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
    """Calibrated cameras of a car, in the BEV frame of a student; `read` loads a file, `of_matrices` takes arrays.

    Raises:
        UserError: for implausible matrices, and for repeated names.
    """

    names: tuple[str, ...] = ()
    """Names of the cameras, in the order of their images; default: "camera 0", "camera 1", ..."""
    image_size: tuple[int, int]
    """Height and width of the images that the intrinsics belong to, pixels."""
    frame: Frame = "lidar"
    """Frame of the poses: x right, y forward, z up at the LiDAR, or x forward, y left, z up at the rear axle."""
    intrinsics: Float[Tensor, "cam 3 3"]
    """Pixels."""
    bev_from_camera: Float[Tensor, "cam 4 4"]
    """Poses of the cameras (x right, y down, z forward) in the frame, metres."""

    def __post_init__(self) -> None:
        for each, hint in (("names", tuple[str, ...]), ("image_size", tuple[int, int]), ("frame", Frame)):
            require(getattr(self, each), hint, each)
        counts = [_count(self.intrinsics, "intrinsics", 3), _count(self.bev_from_camera, "bev_from_camera", 4)]
        names = self.names or tuple(f"camera {number}" for number in range(counts[0]))
        if len({*counts, len(names)}) > 1:
            raise UserError(
                "a rig needs intrinsics, poses and names of the same cameras, got {}, {}, {}".format(
                    *counts, len(names)
                )
            )
        object.__setattr__(self, "names", names)
        if not 1 <= len(set(names)) == len(names) <= MAX_CAMERAS:
            raise UserError(f"a rig has 1 to {MAX_CAMERAS} cameras of different names, got {list(names[:20])}")
        if bad := [name for name in names if not is_name(name)]:
            raise UserError(f"a camera's name is that of its image's file: without slashes, not {bad[0]!r}")
        _require_plausible(self)

    @classmethod
    def of_matrices(
        cls,
        intrinsics: Sequence[Any] | np.ndarray | Tensor,
        bev_from_camera: Sequence[Any] | np.ndarray | Tensor,
        image_size: tuple[int, int],
        *,
        frame: Frame = "lidar",
        names: tuple[str, ...] = (),
    ) -> "Rig":
        """Create a rig from a 3x3 and a 4x4 matrix for each camera: arrays, tensors or nested lists.

        Raises:
            UserError: for matrices of another shape; and as in the class.
        """
        return cls(
            image_size=image_size,
            frame=frame,
            names=names,
            intrinsics=_numbers(intrinsics, "intrinsics"),
            bev_from_camera=_numbers(bev_from_camera, "bev_from_camera"),
        )

    @classmethod
    def read(cls, path: Path | str, frame: Frame = "lidar") -> "Rig":
        """Read a rig from a JSON file (docs/export.md#predicting-boxes), with the poses transformed to `frame`.

        Raises:
            UserError: for a file that is missing, has another format, or lacks a pose that `frame` needs.
        """
        path = Path(path)
        try:
            file = msgspec.json.decode(read_bytes(path), type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UserError(f"{path} is not a calibration file ({error}); docs/export.md shows the form") from error
        if file.ego_from_lidar is not None and not _is_pose(torch.tensor(file.ego_from_lidar, dtype=torch.float64)):
            raise UserError(f"{path}: ego_from_lidar {NO_POSE}, got {list(map(list, file.ego_from_lidar))}")
        if not file.cameras:
            raise UserError(f"{path} describes no camera")
        try:
            return cls(
                names=tuple(camera.name for camera in file.cameras),
                image_size=file.image_size,
                frame=frame,
                intrinsics=torch.tensor([camera.intrinsics for camera in file.cameras], dtype=torch.float64),
                bev_from_camera=torch.stack([_pose(each, frame, file.ego_from_lidar) for each in file.cameras]),
            )
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    @classmethod
    def of(cls, batch: Batch, image_size: tuple[int, int], frame: Frame) -> "Rig":
        """The rig of one sample: camera poses of the key frame, including the car's motion between exposures."""
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

    def files(self, folder: Path) -> list[list[Path]]:
        """Image files of every moment in a folder, in the rig's order.

        For one moment NAME.jpg (or .png) of each camera; for several a folder NAME for each camera, whose files in
        alphabetical order are the moments.

        Raises:
            UserError: if a camera has no image, or not as many as the others.
        """
        of_camera = []
        for name in self.names:
            moments = (folder / name).is_dir()
            inside = sorted((folder / name if moments else folder).iterdir())
            images = [file for file in inside if file.suffix.lower() in (".jpg", ".jpeg", ".png")]
            of_camera.append(images if moments else [file for file in images if file.stem == name])
        counts = dict(zip(self.names, map(len, of_camera), strict=True))
        single = not any((folder / name).is_dir() for name in self.names)
        if min(counts.values()) == 0 or len(set(counts.values())) > 1 or (single and max(counts.values()) > 1):
            found = ", ".join(f"{name}: {count}" for name, count in counts.items())
            raise UserError(
                f"{folder} should hold NAME.jpg of each camera of the calibration, or a folder NAME of each, all with "
                f"as many images; it has {found}"
            )
        return [list(moment) for moment in zip(*of_camera, strict=True)]

    def load(self, images: list[Path], config: DataConfig) -> UInt8[Tensor, "cam 3 h w"]:
        """Load image files, one per camera in the rig's order, as network input.

        Raises:
            UserError: for another number of files than cameras, and for files that are not such images.
        """
        self._require_one_each(images)
        view = draw_view(config.image_augmentation, config.image_size, self.image_size, None)
        given = "the calibration file"
        loaded = [load_image(p, view, self.image_size, draft=config.draft_decoding, source=given) for p in images]
        return torch.stack(loaded)

    def views(self, images: Images, config: DataConfig) -> UInt8[Tensor, "cam 3 h w"]:
        """Convert images in memory to network input.

        Args:
            images: One per camera in the rig's order, uint8 [height, width, 3], RGB, of any size with the aspect ratio
                of `image_size`.

        Raises:
            UserError: for another number of images than cameras, and for arrays of another form.
        """
        self._require_one_each(images)
        view = draw_view(config.image_augmentation, config.image_size, self.image_size, None)
        seen = []
        for name, image in zip(self.names, images, strict=True):
            array = image if isinstance(image, Tensor) else np.array(image)
            kind = str(array.dtype).removeprefix("torch.")
            if kind != "uint8" or array.ndim != 3 or array.shape[2] != 3:
                given = f"{kind} {list(array.shape)}"
                raise UserError(f"the image of {name} is {given}: expected uint8 [height, width, 3], RGB")
            pixels = torch.as_tensor(array, device="cpu")
            (height, width), (own_height, own_width) = pixels.shape[:2], self.image_size
            scale = min(height / own_height, width / own_width)
            if max(abs(scale * own_height - height), abs(scale * own_width - width)) >= 2:
                raise UserError(
                    f"the image of {name} has {width}x{height} pixels, those of the rig {own_width}x{own_height}"
                    ": they differ in proportions; crop the image, and shift the principal point with it"
                )
            seen.append(apply_view(pixels.permute(2, 0, 1), view, self.image_size, scale))
        return torch.stack(seen)

    def _require_one_each(self, images: Sequence[object] | np.ndarray | Tensor) -> None:
        require(images, Images, "images")
        if len(images) != len(self.names):
            raise UserError(
                f"the calibration describes {len(self.names)} cameras ({', '.join(self.names)}): "
                f"expected one image each, in that order, got {len(images)}"
            )

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


def _numbers(given: Any, name: str) -> Tensor:
    """Matrices as float64; raises UserError for what are none."""
    try:
        array = np.array(given.detach().cpu() if isinstance(given, Tensor) else given)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"they are {array.dtype}")
    except (ValueError, TypeError) as error:
        raise UserError(f"{name} must be matrices of numbers: {error}") from None
    return torch.from_numpy(array.astype(np.float64))


def _count(matrices: Any, name: str, side: int) -> int:
    """Number of matrices; raises UserError for others than a square one for each camera."""
    shape = tuple(getattr(matrices, "shape", ()))
    if not isinstance(matrices, Tensor) or len(shape) != 3 or shape[1:] != (side, side) or not shape[0]:
        raise UserError(f"{name} must be a tensor with a {side}x{side} matrix for each camera, got {shape}")
    return shape[0]


def _require_plausible(rig: Rig) -> None:
    """Refuse what no camera on a car can have (`data.plausible`), with a UserError that names the first one."""
    names, size = rig.names, np.array([rig.image_size] * len(rig.names))
    intrinsics = rig.intrinsics.double().numpy()
    poses = rig.bev_from_camera.double()
    for good, expected, given in (
        (good_sizes(size), f"an image_size of 1 to {LARGEST_SIDE} pixels", size),
        (good_matrices(intrinsics), f"intrinsics {MATRIX}", intrinsics),
        (good_principal_points(intrinsics, size), "a principal point inside the image", intrinsics),
        (np.array([_is_pose(pose) for pose in poses]), f"a pose: its {rig.frame}_from_camera {NO_POSE}", poses),
    ):
        for at in np.flatnonzero(~good)[:1]:
            raise UserError(f"camera {names[at]!r} needs {expected}, got {given[at].tolist()}")


def _is_pose(pose: Float[Tensor, "4 4"]) -> bool:
    rotation, last = pose[:3, :3], pose.new_tensor([0.0, 0.0, 0.0, 1.0])
    orthogonal = (rotation @ rotation.mT - torch.eye(3, dtype=pose.dtype)).abs().max() < 1e-3
    near = bool(good_mountings(pose[None, :3, 3].numpy()).all())
    return bool(orthogonal & (torch.linalg.det(rotation) > 0) & near & (pose[3] == last).all())


def _pose(camera: _Camera, frame: Frame, ego_from_lidar: _Pose | None) -> Float[Tensor, "4 4"]:
    """`frame`_from_camera."""
    given = {"lidar": camera.lidar_from_camera, "ego": camera.ego_from_camera}
    other: Frame = "ego" if frame == "lidar" else "lidar"
    if given[frame] is not None:
        pose = torch.tensor(given[frame], dtype=torch.float64)
    elif given[other] is None:
        raise UserError(f"{camera.name} has neither lidar_from_camera nor ego_from_camera")
    elif ego_from_lidar is None:
        raise UserError(
            f"it gives {other}_from_camera of {camera.name}, but this student works in the {frame} frame: "
            f"give {frame}_from_camera, or ego_from_lidar beside it"
        )
    else:
        link = torch.tensor(ego_from_lidar, dtype=torch.float64)
        frame_from_other = link if frame == "ego" else torch.linalg.inv(link)
        pose = frame_from_other @ torch.tensor(given[other], dtype=torch.float64)
    return pose
