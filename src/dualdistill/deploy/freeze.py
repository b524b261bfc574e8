"""The student as a pure function of tensors, from images to the maps of the head, with batch size one.

Everything that depends on the calibration alone is computed before. With a fixed `RigGeometry` it is part of the
graph: the pooling plan, and the outputs of the depth network's camera branch for these cameras, as constants.
"""

import copy
import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dualdistill.errors import UserError
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.layers.depth_net import DeformableConv, GatedDepthNet, SqueezeDepthNet
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


Format = Literal["torch", "onnx"]
"""File format of the graph, which decides its operators. "torch", also for OpenVINO: points are summed into
cells by an embedding bag, deformable convolutions sample and convolve (`SampledConv`). "onnx": gather, scale,
scatter-add (57 ms of some 2,400 in ONNX Runtime at full size), and its own deformable convolution."""


class FrozenStudent(nn.Module):
    """A trained student in evaluation mode, its weights copied; the inputs are those of `frame_inputs`.

    A student of two frames (fusion "warp") takes the map of the earlier frame and returns that of the current one: each
    image is processed once. For the first frame of a drive there is no earlier map: call twice, the second time with
    the map of the first call.
    """

    def __init__(self, student: BevDepth, rig: RigGeometry | None = None, *, format: Format = "torch"):
        """Freeze a student. `rig`: geometry of the only cameras it is used with; None makes it an input. Raises
        UserError for a student whose earlier frame is lifted into the current one ("lift", two frames)."""
        super().__init__()
        temporal = student.config.temporal
        if temporal.frames == 2 and not temporal.warps:
            raise UserError(
                "Students that lift the earlier frame straight into the current one (temporal.fusion=lift, the "
                "official BEVDepth with two frames) cannot be exported: their earlier map depends on where the car "
                "went. Expected one frame, or two with temporal.fusion=warp."
            )
        self.student = copy.deepcopy(student).eval().requires_grad_(False)
        self.format, self.fixed = format, rig is not None
        if format == "torch":
            with_sampled_convs(self.student)
        if rig is not None:
            with_constant_gates(self.student.depth_net, rig.camera)
            self.register_buffer("kept_point", rig.point)
            self.register_buffer("kept_cell", rig.cell)
            self.register_buffer("cell_start", self._starts(rig.cell))

    @property
    def takes_previous_map(self) -> bool:
        """True if it takes the map of an earlier frame."""
        return self.student.config.temporal.warps

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` returns."""
        return ("heatmap", "regression", "map") if self.takes_previous_map else ("heatmap", "regression")

    def forward(
        self,
        images: Tensor,
        previous_map: Tensor | None = None,
        previous_from_current: Tensor | None = None,
        camera: Tensor | None = None,
        point: Tensor | None = None,
        cell: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Head maps of one sample (`structures.HeadOutput`), and its own map if it takes an earlier one.

        Args:
            images: uint8, (cam, 3, h, w), RGB, resized and cropped for the network.
            previous_map: The `map` returned for the earlier frame.
            previous_from_current: Motion of the car, (1, 4, 4), as in `structures.Cameras`.
            camera: With `point` and `cell` a `RigGeometry`; all three unless one is fixed.
        """
        if self.fixed:
            camera = torch.zeros(len(images), 1)  # not used: the camera branch is constant
            point, cell = self.get_buffer("kept_point"), self.get_buffer("kept_cell")
        assert camera is not None
        assert point is not None
        assert cell is not None
        *_, current = self.student.camera_map(images, camera, partial(self._pool, point=point, cell=cell))
        if not self.takes_previous_map:
            return self._predict(current)
        assert previous_map is not None
        assert previous_from_current is not None
        warped = self.student.warp(previous_map, previous_from_current)
        return (*self._predict(torch.cat([current, warped], dim=1)), current)

    def _predict(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        _, neck = self.student.encoder(canvas)
        predictions = self.student.head(neck)
        return predictions.heatmap, predictions.regression

    def _starts(self, cell: Tensor) -> Tensor:
        """Position of the first point of each cell."""
        return torch.searchsorted(cell, torch.arange(math.prod(self.student.grid.shape), device=cell.device))

    def _pool(self, depth: Tensor, context: Tensor, point: Tensor, cell: Tensor) -> Tensor:
        """Sum of `context` times `depth` in each cell; the plan is sorted by cell."""
        shape = self.student.grid.shape
        rows = context.float().permute(0, 2, 3, 1).reshape(-1, context.shape[1])
        weights = depth.permute(0, 2, 3, 1).reshape(-1).index_select(0, point)
        pixel = torch.div(point, depth.shape[1], rounding_mode="floor")
        if self.format == "torch":
            start = self.get_buffer("cell_start") if self.fixed else self._starts(cell)
            # A last point without weight: in OpenVINO every bag, empty ones at the end too, must start at a point.
            pixel, weights = torch.cat([pixel, pixel[:1]]), torch.cat([weights, weights.new_zeros(1)])
            pooled = F.embedding_bag(pixel, rows, start, mode="sum", per_sample_weights=weights)
        else:
            lifted = rows.index_select(0, pixel) * weights[:, None]
            pooled = lifted.new_zeros(math.prod(shape), rows.shape[1]).index_add(0, cell, lifted)
        return pooled.view(1, *shape, -1).permute(0, 3, 1, 2)


class Constant(nn.Module):
    """A module whose output is a constant."""

    value: Tensor

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, _: Tensor) -> Tensor:
        return self.value


@torch.no_grad()
def with_constant_gates(net: GatedDepthNet | SqueezeDepthNet, camera: Float[Tensor, "cam vector"]) -> None:
    """Replace the camera branch of a depth network, in place, by its outputs for these cameras."""
    normed = net.vector_norm(camera)
    setattr(net, "vector_norm", nn.Identity())  # noqa: B010  (declared as a norm)
    for name in ("gate",) if isinstance(net, GatedDepthNet) else ("context_gate", "depth_gate"):
        setattr(net, name, Constant(net.get_submodule(name)(normed)))


class SampledConv(nn.Module):
    """A trained `DeformableConv` with its weights, as two operators that are fast in every runtime: sample the nine
    taps, then convolve them.

    torchvision's operator is slower than the two on a CPU, and OpenVINO runs it as a loop that takes two thirds of the
    time of a whole student. ONNX Runtime's own is faster than either: ONNX files keep it.
    """

    def __init__(self, conv: DeformableConv):
        super().__init__()
        self.modulated, self.offset, self.bias = conv.modulated, conv.offset, conv.bias
        self.weight = nn.Parameter(conv.weight.detach().flatten(2).unsqueeze(3))  # out, in, taps, 1
        self.groups = conv.offset.in_channels // conv.weight.shape[1]

    def forward(self, x: Float[Tensor, "images _ h w"]) -> Float[Tensor, "images _ h w"]:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            height, width = x.shape[-2:]
            offset = self.offset(x)
            dy, dx = offset[:, :18].unflatten(1, (9, 2)).unbind(2)  # images taps h w
            tap = torch.arange(9, device=x.device).view(9, 1, 1)
            row = dy + (tap // 3 - 1 + torch.arange(height, device=x.device).view(-1, 1))
            column = dx + (tap % 3 - 1 + torch.arange(width, device=x.device))
            # -1 and 1 are the outer edges of the map; outside it is zero, as in a deformable convolution
            place = torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], dim=-1)
            taps = F.grid_sample(x, _taps_below(place), align_corners=False)  # images chan (h taps) w
            if self.modulated:
                taps = taps * _taps_below(offset[:, 18:].sigmoid()).unsqueeze(1)
            return F.conv2d(taps, self.weight, self.bias, stride=(9, 1), groups=self.groups)


def _taps_below(of_taps: Tensor) -> Tensor:
    """(images, taps, h, ...) to (images, h taps, ...): the taps of a row below each other."""
    return of_taps.transpose(1, 2).flatten(1, 2)


def with_sampled_convs(module: nn.Module) -> None:
    """Replace every deformable convolution inside by a `SampledConv`, in place."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, DeformableConv):
                setattr(parent, name, SampledConv(child))
