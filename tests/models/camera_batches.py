"""Small camera batches and students for tests."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from dualdistill.geometry.transforms import rigid
from dualdistill.models.bevdepth import BevDepthConfig, distill_bevdepth, official_bevdepth
from dualdistill.structures import Batch, Boxes, Cameras

HEIGHT, WIDTH, STRIDE = 64, 192, 16


def small(config: BevDepthConfig) -> BevDepthConfig:
    """The same network with few channels, wide bins and cells."""
    return replace(
        config,
        image=replace(config.image, backbone="test_resnet", channels=16),
        lift=replace(
            config.lift,
            depth_step=4 * config.lift.depth_step,
            context_channels=8,
            hidden_channels=16,
            blocks=1,
        ),
        temporal=replace(config.temporal, blocks=1),
        bev=replace(config.bev, cell=3.2, widths=(16, 24, 32), blocks=1, neck_channels=16),
        head=replace(config.head, shared_channels=8, head_channels=8),
    )


def students() -> dict[str, BevDepthConfig]:
    """Every network that goes by the name, small."""
    return {
        "distill, two frames": small(distill_bevdepth()),
        "distill, one frame": small(distill_bevdepth(frames=1, final_norm=False)),
        "official, two frames": small(official_bevdepth()),
        "official, one frame": small(official_bevdepth(frames=1)),
        "official, refined": small(official_bevdepth(refine=True)),
    }


def rig() -> Tensor:
    """Pose of six cameras around the car: `bev_from_camera`, cam 4 4."""
    poses = []
    for angle_deg in (145, 90, 35, 200, 270, 340):
        cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
        axes = torch.tensor([[sin, 0.0, cos], [-cos, 0.0, sin], [0.0, -1.0, 0.0]])  # right, down, forward
        poses.append(rigid(axes, torch.tensor([cos, sin, -0.3])))
    return torch.stack(poses)


def camera_batch(
    *, batch: int = 2, frames: int = 2, same_frames: bool = False, stride: int = STRIDE, width: int = WIDTH
) -> Batch:
    """A car that drives 3.2 m along x between the frames, past random images, among three boxes."""
    images = torch.randint(0, 256, (batch, frames, 6, 3, HEIGHT, width), dtype=torch.uint8)
    pose = rig().expand(batch, frames, 6, 4, 4).clone()
    motion = torch.eye(4)
    if same_frames:
        images = images[:, :1].expand_as(images).contiguous()
    elif frames == 2:
        motion[0, 3] = 3.2
        pose[:, 1, :, 0, 3] -= 3.2
    scaled = torch.diag(torch.tensor([0.11, 0.11, 1.0, 1.0]))
    scaled[1, 3] = -35.0
    intrinsics = torch.tensor([[1266.4, 0, 816.3], [0, 1266.4, 491.5], [0, 0, 1.0]])
    cameras = Cameras(
        images=images,
        intrinsics=intrinsics.expand(batch, frames, 6, 3, 3),
        augmented_from_image=scaled.expand(batch, frames, 6, 4, 4),
        bev_from_camera=pose,
        previous_from_current=motion.expand(batch, 4, 4),
        frame_gap=torch.linspace(0.5, 1.0, batch),
    )
    depth = torch.rand(batch, 6, HEIGHT // stride, width // stride) * 70
    return Batch(
        boxes=tuple(some_boxes() for _ in range(batch)),
        augmented_from_bev=torch.eye(4).expand(batch, 4, 4),
        meta=(),
        cameras=cameras,
        depth=torch.where(depth < 20, 0.0, depth),
    )


def some_boxes() -> Boxes:
    return Boxes(
        center=torch.tensor([[10.0, 5.0, -1.0], [-20.0, 8.0, 0.0], [3.0, -30.0, -0.5]]),
        size=torch.tensor([[4.6, 1.95, 1.6], [0.7, 0.7, 1.7], [11.0, 2.9, 3.4]]),
        yaw=torch.tensor([0.3, -2.0, 1.5]),
        velocity=torch.tensor([[3.0, 1.0], [0.0, 0.0], [torch.nan, torch.nan]]),
        label=torch.tensor([0, 8, 3]),
    )
