"""Random batches in the shapes an experiment's networks take: for costs, which content hardly changes, and tests."""

import math

import torch
from torch import Tensor

from dualdistill.data.config import DataConfig
from dualdistill.structures import CLASSES, Batch, Boxes, Cameras, InstanceMap, Points, SampleMeta

POINTS = 25_000
"""Points in range of one sweep of a 32-beam LiDAR."""


def random_batch(
    data: DataConfig, samples: int = 1, *, boxes: int = 30, points: int | None = None, cameras: int = 6, seed: int = 0
) -> Batch:
    """`samples` samples with `boxes` objects each, and cameras evenly about the car. `points`: LiDAR points of a
    sample; as many as the sweeps of this configuration hold, if not given."""
    generator = torch.Generator().manual_seed(seed)
    points = POINTS * data.num_sweeps if points is None else points

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    def scene() -> Boxes:
        center = uniform(-data.box_reach, data.box_reach, boxes, 3)
        center[:, 2] = -1.0
        return Boxes(
            center=center,
            size=uniform(0.5, 5.0, boxes, 3),
            yaw=uniform(-math.pi, math.pi, boxes),
            velocity=uniform(-5.0, 5.0, boxes, 2),
            label=torch.randint(0, len(CLASSES), (boxes,), generator=generator),
        )

    rows, columns = (side // data.depth_stride for side in data.image_size)
    depth = uniform(*data.depth_range, samples, cameras, rows, columns)
    depth = torch.where(uniform(0, 1, *depth.shape) < 0.3, depth, 0.0)  # most cells see no point
    nowhere = torch.eye(4, dtype=torch.float64)
    return Batch(
        boxes=tuple(scene() for _ in range(samples)),
        augmented_from_bev=torch.eye(4).expand(samples, 4, 4),
        meta=tuple(
            SampleMeta(token=f"{number:032x}", timestamp_us=0, global_from_bev=nowhere, ego_from_bev=nowhere)
            for number in range(samples)
        ),
        cameras=_rig(data, samples, cameras, generator) if data.cameras else None,
        points=_cloud(data, samples, points, generator) if data.points else None,
        depth=depth if data.cameras and data.depth else None,
        depth_instance=torch.full(depth.shape, -1) if data.depth_instance else None,
        instances=_instances(depth.shape, generator) if data.instances is not None else None,
    )


def _instances(shape: torch.Size, generator: torch.Generator) -> InstanceMap:
    """Every cell an object, all numbered alike."""
    klass = torch.randint(0, len(CLASSES), shape, generator=generator)
    return InstanceMap(klass=klass, instance=torch.zeros_like(klass))


def _rig(data: DataConfig, samples: int, cameras: int, generator: torch.Generator) -> Cameras:
    height, width = data.image_size
    shape = (samples, data.num_frames, cameras)
    intrinsics = torch.tensor([[0.8 * width, 0.0, width / 2], [0.0, 0.8 * width, height / 2], [0.0, 0.0, 1.0]])
    poses = torch.eye(4).repeat(cameras, 1, 1)
    for pose, number in zip(poses, range(cameras), strict=True):
        angle = 2 * math.pi * number / cameras
        sin, cos = math.sin(angle), math.cos(angle)
        pose[:3, :3] = torch.tensor([[sin, 0.0, cos], [-cos, 0.0, sin], [0.0, -1.0, 0.0]])  # right, down, ahead
        pose[:3, 3] = torch.tensor([cos, sin, 0.0])
    return Cameras(
        images=torch.randint(0, 256, (*shape, 3, height, width), dtype=torch.uint8, generator=generator),
        intrinsics=intrinsics.expand(*shape, 3, 3),
        augmented_from_image=torch.eye(4).expand(*shape, 4, 4),
        bev_from_camera=poses.expand(*shape, 4, 4),
        previous_from_current=torch.eye(4).expand(samples, 4, 4),
        frame_gap=torch.full((samples,), 0.5),
    )


def _cloud(data: DataConfig, samples: int, points: int, generator: torch.Generator) -> Points:
    """Points on small surfaces, most of them low and near the car: 250,000 fill about as many voxels and pillars as ten
    nuScenes sweeps. Uniform points would fill three times as many."""
    low, high = torch.tensor(data.point_range).view(2, 3)
    radius, azimuth, height = torch.rand(3, samples * points // 60 + 1, generator=generator)
    radius, azimuth, height = high[0] * radius**2, 2 * math.pi * azimuth, 0.3 + 0.5 * height**3
    surfaces = torch.stack(
        [radius * azimuth.cos(), radius * azimuth.sin(), low[2] + (high[2] - low[2]) * height], dim=1
    )
    features = torch.rand(samples * points, data.point_channels, generator=generator)
    spread = torch.tensor([0.1, 0.1, 0.05]) * torch.randn(samples * points, 3, generator=generator)
    features[:, :3] = surfaces.repeat_interleave(60, dim=0)[: samples * points] + spread
    return Points(features=features, sample=torch.arange(samples).repeat_interleave(points))
