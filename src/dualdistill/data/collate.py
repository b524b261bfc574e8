"""Samples into a batch."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from dualdistill.structures import Batch, Cameras, InstanceMap, Points

Part = TypeVar("Part")


def collate(samples: Sequence[Batch]) -> Batch:
    """One batch of several (of one sample each, or more).

    Raises:
        ValueError: if there are none, or some have a part that others lack.
    """
    if not samples:
        raise ValueError("a batch needs at least one sample")
    cameras = _present("cameras", [sample.cameras for sample in samples])
    points = _present("points", [sample.points for sample in samples])
    depth = _present("depth", [sample.depth for sample in samples])
    depth_instance = _present("depth_instance", [sample.depth_instance for sample in samples])
    instances = _present("instances", [sample.instances for sample in samples])
    return Batch(
        boxes=tuple(boxes for sample in samples for boxes in sample.boxes),
        augmented_from_bev=torch.cat([sample.augmented_from_bev for sample in samples]),
        meta=tuple(meta for sample in samples for meta in sample.meta),
        cameras=_concatenate_cameras(cameras) if cameras else None,
        points=_concatenate_points(points, [len(sample) for sample in samples]) if points else None,
        depth=torch.cat(depth) if depth else None,
        depth_instance=torch.cat(depth_instance) if depth_instance else None,
        instances=_concatenate_instances(instances) if instances else None,
    )


def _present(name: str, parts: Sequence[Part | None]) -> list[Part]:
    """The parts all samples have; none if none of them has it."""
    present = [part for part in parts if part is not None]
    if present and len(present) != len(parts):
        raise ValueError(f"{len(present)} of {len(parts)} samples have {name}: they come from different data")
    return present


def _concatenate_cameras(parts: Sequence[Cameras]) -> Cameras:
    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    return Cameras(
        images=joined("images"),
        intrinsics=joined("intrinsics"),
        augmented_from_image=joined("augmented_from_image"),
        bev_from_camera=joined("bev_from_camera"),
        previous_from_current=joined("previous_from_current"),
        frame_gap=joined("frame_gap"),
    )


def _concatenate_instances(parts: Sequence[InstanceMap]) -> InstanceMap:
    return InstanceMap(
        klass=torch.cat([part.klass for part in parts]), instance=torch.cat([part.instance for part in parts])
    )


def _concatenate_points(parts: Sequence[Points], lengths: Sequence[int]) -> Points:
    first = torch.tensor([0, *lengths]).cumsum(0)
    return Points(
        features=torch.cat([part.features for part in parts]),
        sample=torch.cat([part.sample + start for part, start in zip(parts, first, strict=False)]),
    )
