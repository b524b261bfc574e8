"""What a deployed graph must know of its cameras: the vector its depth network is told, and which frustum points
meet in which cell. Images apart, this is all of a sample that a student looks at."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dualdistill.errors import UserError
from dualdistill.geometry.frustum import frustum, lift
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.layers.camera_vector import calibration_vector, pose_vector
from dualdistill.ops.bev_pool import make_pool_plan
from dualdistill.structures import Batch, Cameras


@dataclass(frozen=True, kw_only=True)
class RigGeometry:
    """The calibration of one set of cameras, ready for the graph: tensors, in the order the graph takes them."""

    camera: Float[Tensor, "cam vector"]
    """What the depth network is told of each camera."""
    point: Int[Tensor, "kept"]
    """Flat index (cam, h, w, depth) of each frustum point that falls into a cell, cell after cell."""
    cell: Int[Tensor, "kept"]
    """The cell of each, ascending; cells count row by row."""

    def tensors(self) -> dict[str, Tensor]:
        """By the names of the graph's inputs."""
        return {"camera": self.camera, "point": self.point, "cell": self.cell}


@torch.no_grad()
def rig_geometry(student: BevDepth, batch: Batch, frame: int = 0) -> RigGeometry:
    """How the cameras of one sample see the map, as the student itself would work it out (`BevDepth`).

    Args:
        batch: Of one sample; its images are not looked at.
        frame: 1 is the earlier frame, as if the car rested.

    Raises:
        UserError: if the rig shows nothing of the map.
    """
    cameras = cameras_of(batch)
    config = student.config
    height, width = cameras.images.shape[-2:]
    stride = config.image.stride
    points = lift(
        frustum((height, width), (height // stride, width // stride), student.depths.cpu()),
        cameras.intrinsics[:, frame],
        cameras.augmented_from_image[:, frame],
        cameras.bev_from_camera[:, 0],
    )
    if config.lift.refine:
        points = points.flatten(1, 2).unsqueeze(2)
    plan = make_pool_plan(points, student.grid, config.lift.z_range, config.lift.index)
    kept = len(plan.point_by_cell)
    if not kept:
        raise UserError(
            "Nothing the cameras see lies on the map: check the poses (camera axes are x right, y down, z forward; "
            "metres) and the intrinsics (pixels of the stored image)."
        )
    count = torch.diff(plan.cell_start, append=plan.cell_start.new_tensor([kept]))
    return RigGeometry(
        camera=_camera_vector(student, batch, frame),
        point=plan.point_by_cell.long(),
        cell=torch.arange(len(count)).repeat_interleave(count, output_size=kept),
    )


def _camera_vector(student: BevDepth, batch: Batch, frame: int) -> Float[Tensor, "cam vector"]:
    cameras = cameras_of(batch)
    gated = student.config.lift.net == "gated"
    own = frame if gated else 0
    calibration = (
        cameras.intrinsics[:, own],
        cameras.augmented_from_image[:, own],
        cameras.bev_from_camera[:, 0],
    )
    return pose_vector(*calibration) if gated else calibration_vector(*calibration, batch.augmented_from_bev)


def cameras_of(batch: Batch) -> Cameras:
    """The cameras of a batch of one.

    Raises:
        ValueError: for more samples, or none.
    """
    if batch.cameras is None or len(batch.cameras.images) != 1:
        raise ValueError("a deployed student looks at one sample with cameras at a time")
    return batch.cameras
