"""Calibration inputs of a deployed graph: camera vectors of the depth network, and the BEV cells of frustum points."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dualdistill.errors import UserError
from dualdistill.models.bevdepth import BevDepth
from dualdistill.structures import Batch, Cameras


@dataclass(frozen=True, kw_only=True)
class RigGeometry:
    """The calibration of one set of cameras as the tensors a deployed graph takes, named and in order as there."""

    camera: Float[Tensor, "cam vector"]
    """Camera vectors (`BevDepth.camera_vector`)."""
    point: Int[Tensor, "kept"]
    """Flat index (cam, h, w, depth) of each frustum point inside the map, sorted by cell."""
    cell: Int[Tensor, "kept"]
    """Flat BEV cell (row * width + column) of each of these points, ascending."""


@torch.no_grad()
def rig_geometry(student: BevDepth, batch: Batch, frame: int = 0) -> RigGeometry:
    """The geometry of the cameras of one sample, computed as `BevDepth` does. Raises UserError if no camera sees a part
    of the map.

    Args:
        batch: One sample; of its images only the size is used.
        frame: 1 is the earlier frame, lifted with the poses of the current one.
    """
    cameras = cameras_of(batch)
    plan = student.pool_plan(cameras, frame)
    kept = len(plan.point_by_cell)
    if not kept:
        raise UserError(
            "Nothing the cameras see lies on the map: check the poses (camera axes are x right, y down, z forward; "
            "metres) and the intrinsics (pixels of the stored image)."
        )
    count = torch.diff(plan.cell_start, append=plan.cell_start.new_tensor([kept]))
    return RigGeometry(
        camera=student.camera_vector(cameras, batch.augmented_from_bev, frame),
        point=plan.point_by_cell.long(),
        cell=torch.arange(len(count)).repeat_interleave(count, output_size=kept),
    )


def cameras_of(batch: Batch) -> Cameras:
    """The cameras of a batch of one sample; raises ValueError for more samples, or none."""
    if batch.cameras is None or len(batch.cameras.images) != 1:
        raise ValueError("a deployed student takes one sample with cameras at a time")
    return batch.cameras
