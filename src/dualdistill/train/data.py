"""Batches: those of a training, whose order is a pure function of (seed, step), and random ones in the same shapes."""

import math
import os
import resource
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dualdistill.data.config import DataConfig
from dualdistill.structures import CLASSES, Batch, Boxes, Cameras, InstanceMap, Points, SampleMeta

MAX_WORKERS = 16
"""Loader processes of one training process, unless the user asks for more."""

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a training after its step."""
_GRACE_SECONDS = 60

POINTS = 25_000
"""Points in range of one sweep of a 32-beam LiDAR."""


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) pairs for all the steps of a training that are still to come.

    Each epoch is a permutation drawn from (seed, epoch); epochs follow each other without a gap, so a batch may hold
    the end of one and the beginning of the next. Several processes share each batch: process `rank` of `world` takes
    every `world`-th sample of it, so that what a step sees does not depend on their number.
    """

    def __init__(
        self, length: int, batch_size: int, *, first: int, last: int, seed: int, rank: int = 0, world: int = 1
    ):
        """Args: `batch_size` counts the samples of all processes; `first` and `last` number the batches (`last`
        excluded)."""
        if batch_size % world:
            raise ValueError(f"{world} processes cannot share a batch of {batch_size}")
        self.length, self.batch_size = length, batch_size
        self.first, self.last = first, last
        self.seed, self.rank, self.world = seed, rank, world
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return map(self.batch, range(self.first, self.last))

    def batch(self, number: int) -> list[tuple[int, int]]:
        """This process's share of a batch."""
        pairs = []
        for place in range(number * self.batch_size + self.rank, (number + 1) * self.batch_size, self.world):
            epoch, index = divmod(place, self.length)
            if epoch != self._epoch:
                self._epoch = epoch
                self._order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            pairs.append((epoch, int(self._order[index])))
        return pairs


def training_loader(
    dataset: Dataset[Any], collate: Callable[[list[Any]], Any], order: StepSampler, *, workers: int, pin: bool = False
) -> DataLoader[Any]:
    """The batches of `order`, each the same however many workers load it."""
    # Loader processes pass each tensor as a file: raise the limit of open files as far as this process may.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=outlive_stop_signals,
        pin_memory=pin,
    )


def outlive_stop_signals(worker: int) -> None:
    """Set up a loader process: terminals and schedulers signal it too, and the last step still needs its batches.

    SIGTERM is obeyed after a minute, in case the training process is gone.
    """
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_SECONDS))


def default_workers(processes: int = 1) -> int:
    """Loader processes for each of the training processes of one machine: its share of the usable cores but one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(MAX_WORKERS, cores // processes - 1))


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
    poses = {name: torch.eye(4, dtype=torch.float64) for name in ("global_from_bev", "ego_from_bev")}
    return Batch(
        boxes=tuple(scene() for _ in range(samples)),
        augmented_from_bev=torch.eye(4).expand(samples, 4, 4),
        meta=tuple(SampleMeta(token=f"{number:032x}", timestamp_us=0, **poses) for number in range(samples)),
        cameras=_rig(data, samples, cameras, generator) if data.cameras else None,
        points=_cloud(data, samples, points, generator) if data.points else None,
        depth=depth if data.cameras and data.depth else None,
        depth_instance=torch.full(depth.shape, -1) if data.depth_instance else None,
        instances=InstanceMap(  # every cell an object, all numbered alike
            klass=torch.randint(0, len(CLASSES), depth.shape, generator=generator),
            instance=torch.zeros(depth.shape, dtype=torch.long),
        )
        if data.instances is not None
        else None,
    )


def _rig(data: DataConfig, samples: int, cameras: int, generator: torch.Generator) -> Cameras:
    height, width = data.image_size
    shape = (samples, data.num_frames, cameras)
    intrinsics = torch.tensor([[0.8 * width, 0.0, width / 2], [0.0, 0.8 * width, height / 2], [0.0, 0.0, 1.0]])
    rows = []
    for number in range(cameras):
        sin, cos = (function(2 * math.pi * number / cameras) for function in (math.sin, math.cos))
        rows += [[sin, 0.0, cos, cos], [-cos, 0.0, sin, sin], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    poses = torch.tensor(rows).view(cameras, 4, 4)  # right, down, ahead; place
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
