"""Recordings of samples in three dimensions, for the viewer of rerun (https://rerun.io, extra `viz`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.colors import to_rgba
from torch import Tensor

from dualdistill.errors import optional
from dualdistill.structures import CAMERAS, CLASSES, Cameras
from dualdistill.visualize.palette import DARK, BoxLayer

TIMELINE = "sample"
"""Name of the viewer's time axis."""


def require_rerun() -> Any:
    """The module `rerun`; a UserError where it is not installed."""
    return optional("rerun", "viz", "A recording", ", or leave --rerun out")


class Recording:
    """A recording, written sample by sample in a `with` statement. No display is needed.

    Raises:
        UserError: where rerun is not installed.
    """

    def __init__(self, path: Path):
        self._rerun = rerun = require_rerun()
        self._count = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = rerun.RecordingStream("dualdistill")
        self._stream.save(str(path))
        self._stream.log("bev", rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.disconnect()

    def add(
        self,
        token: str,
        points: Float[Tensor, "points chan"] | None,
        cameras: Cameras | None,
        layers: Sequence[BoxLayer],
    ) -> None:
        """Add one sample: points (x, y, z in metres, and any further columns) and boxes in its BEV frame, and the
        images of its current frame at the camera poses."""
        rerun = self._rerun
        self._stream.set_time(TIMELINE, sequence=self._count)
        self._count += 1
        self._stream.log("token", rerun.TextDocument(token))
        if points is not None:
            self._stream.log("bev/points", rerun.Points3D(points[:, :3].cpu().numpy(), radii=0.04))
        for layer in layers:
            self._stream.log(f"bev/{layer.name}", self._boxes(layer))
        if cameras is not None:
            self._add_cameras(cameras)

    def _boxes(self, layer: BoxLayer) -> Any:
        boxes = layer.shown.to("cpu")
        zero = torch.zeros_like(boxes.yaw)
        half = boxes.yaw / 2
        scores = [None] * len(boxes) if boxes.score is None else boxes.score.tolist()
        colours = zip(layer.colours(DARK), layer.opacities(), strict=True)
        return self._rerun.Boxes3D(
            centers=boxes.center.numpy(),
            half_sizes=boxes.size.numpy() / 2,
            quaternions=torch.stack([zero, zero, half.sin(), half.cos()], dim=1).numpy(),  # x, y, z, w
            colors=np.array([to_rgba(colour, opacity) for colour, opacity in colours]).reshape(-1, 4),
            labels=[
                CLASSES[label] if score is None else f"{CLASSES[label]} {score:.2f}"
                for label, score in zip(boxes.label.tolist(), scores, strict=True)
            ],
            show_labels=False,
        )

    def _add_cameras(self, cameras: Cameras) -> None:
        rerun, (height, width) = self._rerun, cameras.images.shape[-2:]
        of_frame = (cameras.images, cameras.intrinsics, cameras.augmented_from_image, cameras.bev_from_camera)
        columns = [column[0, 0].cpu() for column in of_frame]
        names = CAMERAS if len(columns[0]) == len(CAMERAS) else [f"CAM_{i}" for i in range(len(columns[0]))]
        for name, image, intrinsics, augmented, pose in zip(names, *columns, strict=True):
            place = f"bev/{name}"
            moved = torch.eye(3)
            moved[:2, :2], moved[:2, 2] = augmented[:2, :2], augmented[:2, 3]
            pinhole = rerun.Pinhole(image_from_camera=(moved @ intrinsics.float()).numpy(), resolution=[width, height])
            self._stream.log(place, rerun.Transform3D(translation=pose[:3, 3].numpy(), mat3x3=pose[:3, :3].numpy()))
            self._stream.log(place, pinhole)
            self._stream.log(place, rerun.Image(image.permute(1, 2, 0).numpy()).compress(jpeg_quality=84))
