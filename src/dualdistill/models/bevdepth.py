"""BEVDepth, the camera student: images lifted by a supervised depth distribution, fused and encoded in BEV.

Source: BEVDepth (Li et al., AAAI 2023), BEVDet4D; docs/methods/bevdepth.md. One model for all designs, chosen by
`bevdepth_config`.

Differs from the released code in that the earlier frame runs without autograd instead of being cut off
afterwards (the same gradients, less memory), and in that unknown velocities are masked instead of trained to zero.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from dualdistill import hub
from dualdistill.geometry.cameras import frustum, lift
from dualdistill.geometry.grid import BevGrid
from dualdistill.models.bevdepth_config import BevDepthConfig, LiftConfig, distill_bevdepth, official_bevdepth
from dualdistill.models.center_decode import decode
from dualdistill.models.center_training import center_losses, center_targets
from dualdistill.models.checkpoints import load_weights
from dualdistill.models.image_backbone import ImageEncoder
from dualdistill.models.layers.bev_encoder import ResidualEncoder, ResNetEncoder
from dualdistill.models.layers.depth_net import (
    DepthRefinement,
    GatedDepthNet,
    SqueezeDepthNet,
    calibration_vector,
    depth_bins,
    pose_vector,
    sigmoid_depth_loss,
    softmax_depth_loss,
)
from dualdistill.ops.bev_pool import PlanCache, PoolPlan, lift_splat_pool, make_pool_plan
from dualdistill.ops.blocks import residual_stage
from dualdistill.structures import Batch, BevOutput, Boxes, CameraOutput, Cameras, Losses, Targets

__all__ = ["BevDepth", "BevDepthConfig", "distill_bevdepth", "official_bevdepth"]

Pool = Callable[[Tensor, Tensor], Tensor]
"""From depth probabilities (images, depth, h, w) and context features (images, chan, h, w) to a BEV map."""


class BevDepth(nn.Module):
    """A camera detector. Built with random weights; see `load_pretrained`."""

    depths: Tensor

    def __init__(self, config: BevDepthConfig):
        super().__init__()
        self.config = config
        self.grid = config.bev.grid
        context = config.lift.context_channels
        self.image = ImageEncoder(config.image)
        self.depth_net = _depth_net(config.lift, config.image.channels)
        self.refinement = DepthRefinement(context) if config.lift.refine else None
        self.preprocess = (
            residual_stage(context, context, blocks=config.temporal.blocks) if config.temporal.warps else None
        )
        self.encoder = _encoder(config, config.temporal.frames * context)
        self.head = config.head.build(in_channels=config.bev.neck_channels)
        self.register_buffer("depths", config.lift.depths(), persistent=False)
        self.plans = PlanCache()

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the losses of `losses`, by name."""
        return self.config.weights

    def load_pretrained(self) -> None:
        """Start from the weights the config names: a whole student's, or those of an image backbone. Raises UserError
        if they cannot be had, or are of another network."""
        if self.config.pretrained != "none":
            load_weights(self, hub.resolve(self.config.pretrained))
        else:
            self.image.load_pretrained()

    def forward(self, batch: Batch) -> BevOutput:
        """Maps and predictions of a batch, and the depth logits behind them.

        Raises:
            ValueError: if the batch has no cameras, or fewer frames than this model takes.
            UserError: for images whose sides are no multiples of the strides.
        """
        cameras = self._cameras(batch)
        features, logits, current = self._frame_map(batch, cameras, 0)
        maps = [current]
        if self.config.temporal.frames == 2:
            # Second, also for autocast: it keeps the low-precision copies of weights, and copies first made
            # without gradient would cut the current frame off, too.
            with torch.no_grad():
                *_, previous = self._frame_map(batch, cameras, 1)
                if self.config.temporal.warps:
                    previous = self.warp(previous, cameras.previous_from_current)
            maps.append(previous)
        canvas = torch.cat(maps, dim=1)
        stages, neck = self.encoder(canvas)
        images = cameras.images.shape[:1] + cameras.images.shape[2:3]
        return BevOutput(
            extent=self.grid.extent,
            canvas=canvas,
            stages=stages,
            neck=neck,
            predictions=self.head(neck),
            head=self.head,
            frames=len(maps),
            camera=CameraOutput(
                features=features.unflatten(0, images), depth_logits=logits.unflatten(0, images), depths=self.depths
            ),
        )

    def camera_map(
        self, images: UInt8[Tensor, "images 3 height width"], camera: Float[Tensor, "images vector"], pool: Pool
    ) -> tuple[Float[Tensor, "images _ h w"], Float[Tensor, "images depth h w"], Float[Tensor, "batch chan y x"]]:
        """Image features, depth logits and BEV map of one frame.

        Args:
            images: RGB, of all cameras and samples.
            camera: As `camera_vector` makes it.
            pool: Sums context features, weighted by depth probabilities, in the BEV cells of their rays.
        """
        features = self.image(images)
        logits, context = self.depth_net(features, camera)
        depth = logits.float().softmax(dim=1)
        if self.refinement is not None:
            volume = self.refinement(depth.unsqueeze(1) * context.unsqueeze(2))
            context = volume.movedim(1, 2).flatten(0, 1)  # every bin a camera of its own, with one bin
            depth = context.new_ones(len(context), 1, *context.shape[-2:])
        pooled = pool(depth, context)
        return features, logits, pooled if self.preprocess is None else self.preprocess(pooled)

    def warp(
        self, previous: Float[Tensor, "batch chan y x"], previous_from_current: Float[Tensor, "batch 4 4"]
    ) -> Float[Tensor, "batch chan y x"]:
        """The map of the earlier frame, resampled in the current one."""
        return warp_previous(previous, previous_from_current, self.grid, self.config.temporal.anchor)

    @torch.no_grad()
    def pool_plan(self, cameras: Cameras, frame: int) -> PoolPlan:
        """Assignment of the frustum points of a frame (0: the current one, 1: the earlier) to BEV cells.

        An earlier frame that will be warped is lifted with the poses of the current one.
        """
        (height, width), stride = cameras.images.shape[-2:], self.config.image.stride
        feature_size = (height // stride, width // stride)
        matrices = (
            cameras.intrinsics[:, frame],
            cameras.augmented_from_image[:, frame],
            cameras.bev_from_camera[:, 0 if self.config.temporal.warps else frame],
        )

        def make() -> PoolPlan:
            points = lift(frustum((height, width), feature_size, self.depths), *matrices)
            if self.refinement is not None:
                points = points.flatten(1, 2).unsqueeze(2)
            return make_pool_plan(points, self.grid, self.config.lift.z_range, self.config.lift.index)

        if self.training and self.depths.device.type != "cpu":
            return make()  # with augmentation no plan returns, and comparing would make the host wait for the GPU
        return self.plans.get(matrices, (height, width, self.depths.dtype), make)

    @torch.no_grad()
    def camera_vector(
        self, cameras: Cameras, augmented_from_bev: Float[Tensor, "batch 4 4"], frame: int
    ) -> Float[Tensor, "images vector"]:
        """Input of the depth network's camera branch, one row a camera.

        As published, both frames get the poses of the current one; in the official design, its intrinsics and image
        augmentation too.
        """
        gated = self.config.lift.net == "gated"
        own = frame if gated else 0
        calibration = (cameras.intrinsics[:, own], cameras.augmented_from_image[:, own], cameras.bev_from_camera[:, 0])
        with torch.autocast(cameras.images.device.type, enabled=False):
            return pose_vector(*calibration) if gated else calibration_vector(*calibration, augmented_from_bev)

    def targets(self, batch: Batch) -> Targets:
        """What the head and the depth network should predict."""
        scale = self._velocity_scale(batch)
        center = center_targets(batch.boxes, self.grid, self.config.head, velocity_scale=scale)
        return Targets(
            boxes=batch.boxes,
            heatmap=center.heatmap,
            depth=batch.depth,
            depth_instance=batch.depth_instance,
            instances=batch.instances,
            velocity_scale=scale,
            center=center,
        )

    def losses(self, output: BevOutput, targets: Targets) -> Losses:
        """The head's losses and "depth", unweighted, against `self.targets` of the batch. Raises ValueError if the
        targets have no depth, or one of another size than the image features."""
        head = center_losses(output.predictions, targets.center, self.config.head.task_of_class)
        return head | {"depth": self._depth_loss(output, targets)}

    def detect(self, output: BevOutput, batch: Batch) -> tuple[Boxes, ...]:
        """Detections of each sample in the augmented BEV frame, metres a second."""
        detections = decode(output.predictions, self.grid, self.config.head)
        gap = self._velocity_scale(batch)
        if gap is None:
            return detections
        return tuple(
            replace(boxes, velocity=boxes.velocity / seconds) for boxes, seconds in zip(detections, gap, strict=True)
        )

    def _frame_map(self, batch: Batch, cameras: Cameras, frame: int) -> tuple[Tensor, Tensor, Tensor]:
        """`camera_map` of one frame of a batch."""
        camera = self.camera_vector(cameras, batch.augmented_from_bev, frame)

        def pool(depth: Tensor, context: Tensor) -> Tensor:
            return lift_splat_pool(depth, context, self.pool_plan(cameras, frame))

        pixels = cameras.images[:, frame].movedim(-3, -1).flatten(0, 1)  # channels last, as convolutions take them
        return self.camera_map(pixels.movedim(-1, -3), camera, pool)

    def _velocity_scale(self, batch: Batch) -> Float[Tensor, "batch"] | None:
        """Factor of the head's target velocities, seconds; None for metres a second."""
        return self._cameras(batch).frame_gap if self.config.temporal.warps else None

    def _depth_loss(self, output: BevOutput, targets: Targets) -> Float[Tensor, ""]:
        assert output.camera is not None
        logits = output.camera.depth_logits.flatten(0, 1)
        if targets.depth is None:
            raise ValueError("the depth loss needs targets.depth, got None")
        if targets.depth.shape[-2:] != logits.shape[-2:]:
            raise ValueError(
                f"targets.depth must have the size of the image features, {tuple(logits.shape[-2:])}, "
                f"got {tuple(targets.depth.shape[-2:])}: is it made for stride {self.config.image.stride}?"
            )
        lift, depth = self.config.lift, targets.depth.flatten(0, 1)
        bins = depth_bins(depth, first=lift.depth_range[0], step=lift.depth_step, count=lift.bins)
        if lift.loss == "sigmoid":
            return sigmoid_depth_loss(logits, bins)
        return softmax_depth_loss(logits.float().softmax(dim=1), bins)

    def _cameras(self, batch: Batch) -> Cameras:
        """The cameras of the batch; a ValueError where there are none, or fewer frames than this model takes."""
        if batch.cameras is None:
            raise ValueError("a camera student needs batch.cameras, got None")
        frames = batch.cameras.images.shape[1]
        if frames < self.config.temporal.frames:
            raise ValueError(f"this student takes {self.config.temporal.frames} frames, the batch has {frames}")
        return batch.cameras


def _depth_net(config: LiftConfig, in_channels: int) -> GatedDepthNet | SqueezeDepthNet:
    kind = GatedDepthNet if config.net == "gated" else SqueezeDepthNet
    return kind(
        in_channels,
        config.hidden_channels,
        config.context_channels,
        config.bins,
        blocks=config.blocks,
        deformable=config.deformable,
    )


def _encoder(config: BevDepthConfig, in_channels: int) -> ResidualEncoder | ResNetEncoder:
    bev = config.bev
    if bev.encoder == "resnet":
        return ResNetEncoder(in_channels, bev.widths, bev.neck_channels, blocks=bev.blocks)
    return ResidualEncoder(in_channels, bev.widths, bev.neck_channels, blocks=bev.blocks, final_norm=bev.final_norm)


def warp_previous(
    previous: Float[Tensor, "batch chan y x"],
    previous_from_current: Float[Tensor, "batch 4 4"],
    grid: BevGrid,
    anchor: Literal["center", "lower_edge"] = "center",
) -> Float[Tensor, "batch chan y x"]:
    """Bilinear samples of `previous` at the cells of the current frame; zero beyond the map. Runs in float32
    (docs/methods/bevdepth.md#warp).

    Args:
        previous_from_current: Motion in the BEV plane; height, roll and pitch are left out.
        anchor: Point of a cell that is transformed. The released code takes its lower edge, which shifts rotated
            maps by up to half a cell.
    """
    with torch.autocast(previous.device.type, enabled=False):
        inset = 0.5 if anchor == "center" else 0.0
        xy, motion = grid.centers(previous.device, inset), previous_from_current.float()
        xy_then = torch.einsum("bij,yxj->byxi", motion[:, :2, :2], xy) + motion[:, None, None, :2, 3]
        column, row = (2 * (grid.coordinates(xy_then) - inset)).unbind(dim=-1)  # twice; integers at the anchors
        place = torch.stack([column / (grid.width - 1), row / (grid.height - 1)], dim=-1) - 1
        return F.grid_sample(previous.float(), place, mode="bilinear", padding_mode="zeros", align_corners=True)
