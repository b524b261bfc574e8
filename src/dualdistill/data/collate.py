"""Samples on their way from loader processes to the device: packed into a batch whose tensors share one memory, and
finished where the batch is used.

Images are still to be mirrored and rotated, points and depth labels to be computed. On a GPU that takes some launches
and no wait; in a loader it was half of a sample's time. `RawSample.finished` computes the same on every device, except
for one thing: on a CPU points out of range are dropped, and elsewhere, where the host would have to wait for their
number, moved to `OUTSIDE`, from where no detector takes a point.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import get_worker_info

from dualdistill.data.augment import turned
from dualdistill.data.sweeps import CLOSE
from dualdistill.geometry.transforms import transform
from dualdistill.structures import Batch, Points, _Movable

OUTSIDE = 1e6
"""Metres: x, y and z of points that are left out but keep their row."""

_ALIGNMENT = 64
"""Bytes; in a buffer tensors begin at multiples of it."""


@dataclass(frozen=True, kw_only=True)
class RawPoints(_Movable):
    """Point clouds as they were read, those of a sample one after the other, and what makes them `Points`.

    A cloud is a sweep in its sensor's frame, or the points of a sample that were gathered already.
    """

    features: Float[Tensor, "points chan"]
    """x, y, z (metres), intensity, and ring or time lag; gathered points may have more channels."""
    size: Int[Tensor, "clouds"]
    """Points of each cloud."""
    clouds: Int[Tensor, "batch"]
    """Clouds of each sample."""
    augmented_from_cloud: Float[Tensor, "clouds 4 4"]
    lag: Float[Tensor, "clouds"]
    """Seconds before the key frame, which become the fifth channel; above 0, points on the car itself (`CLOSE`) are
    left out. NaN: gathered already, the channels and all points stay."""
    point_range: Float[Tensor, "batch 2 3"]
    """Lowest and highest x, y, z of the points that are kept, both excluded, metres; the same for all samples."""

    def finished(self) -> Points:
        """The points in the augmented BEV frame."""
        sample = _numbers(self.clouds, len(self.size))
        if self.features.device.type != "cpu":
            return self._moved_out(sample)
        (low, high), kept_features = self.point_range[0], []
        clouds = self.features.split(self.size.tolist())
        for cloud, matrix, lag in zip(clouds, self.augmented_from_cloud, self.lag, strict=True):
            # Cloud by cloud, while one lies in the processor's cache.
            xyz = transform(matrix, cloud[:, :3])
            inside = (xyz > low) & (xyz < high)
            kept = inside[:, 0] & inside[:, 1] & inside[:, 2]
            if lag > 0:
                kept &= (cloud[:, 0].abs() >= CLOSE) | (cloud[:, 1].abs() >= CLOSE)
            rows = kept.nonzero().squeeze(1)
            features = cloud.index_select(0, rows)
            features[:, :3] = xyz.index_select(0, rows)
            if not lag.isnan():
                features[:, 4] = lag
            kept_features.append(features)
        sizes = self.size.new_tensor([len(features) for features in kept_features])
        return Points(features=torch.cat(kept_features), sample=sample.repeat_interleave(sizes))

    def _moved_out(self, sample: Int[Tensor, "clouds"]) -> Points:
        """All clouds at once, without a wait."""
        cloud = _numbers(self.size, len(self.features))
        matrix, lag = self.augmented_from_cloud.index_select(0, cloud), self.lag.index_select(0, cloud)
        raw = self.features[:, None, :3]
        xyz = (matrix[:, :3, :3] * raw).sum(dim=2) + matrix[:, :3, 3]
        low, high = self.point_range[0]
        close = (self.features[:, :2].abs() < CLOSE).all(dim=1) & (lag > 0)
        inside = ((xyz > low) & (xyz < high)).all(dim=1) & ~close
        features = self.features.clone()
        features[:, :3] = torch.where(inside[:, None], xyz, OUTSIDE)
        features[:, 4] = torch.where(lag.isnan(), features[:, 4], lag)
        return Points(features=features, sample=sample.index_select(0, cloud))


@dataclass(frozen=True, kw_only=True)
class RawDepth(_Movable):
    """The LiDAR points and matrices that depth labels are made from."""

    points: Float[Tensor, "points 3"]
    """Those of a sample one after the other, metres, in any frame."""
    size: Int[Tensor, "batch"]
    """Points of each sample."""
    longest: int
    """Largest of these, so that no host has to ask for it."""
    camera_from_points: Float[Tensor, "batch cam 4 4"]
    """float64."""
    intrinsics: Float[Tensor, "batch cam 3 3"]
    """float64."""
    augmented_from_image: Float[Tensor, "batch cam 4 4"]
    label: Callable[..., Float[Tensor, "cam h w"]]
    """`depth_labels` with the sizes, range and variant of the recipe."""

    def finished(self) -> Float[Tensor, "batch cam h w"]:
        """Labels as `depth_labels` makes them."""
        cameras = self.camera_from_points, self.intrinsics, self.augmented_from_image
        if self.points.device.type == "cpu":
            clouds = self.points.split(self.size.tolist())
            return torch.stack([self.label(*sample) for sample in zip(clouds, *cameras, strict=True)])
        # All samples at once; rows that fill up the shorter clouds are NaN, which no camera sees.
        place = torch.arange(self.longest, device=self.points.device)
        rows = (self.size.cumsum(0) - self.size)[:, None] + place
        padded = self.points.index_select(0, rows.flatten().clamp(max=len(self.points) - 1)).unflatten(0, rows.shape)
        padded = torch.where((place < self.size[:, None])[..., None], padded, torch.nan)
        batch, count = self.camera_from_points.shape[:2]
        padded = padded[:, None].expand(-1, count, -1, -1).flatten(0, 1)
        return self.label(padded, *(each.flatten(0, 1) for each in cameras)).unflatten(0, (batch, count))


@dataclass(frozen=True, kw_only=True)
class RawSample(_Movable):
    """Samples that may have to be finished."""

    batch: Batch
    """Without `points` and `depth` where the following makes them; images may have to be turned."""
    points: RawPoints | None = None
    depth: RawDepth | None = None
    turns: Int[Tensor, "batch cam 6"] | None = None
    """`ImageView.turn` of the cameras; None where nothing is mirrored or rotated."""

    def __len__(self) -> int:
        return len(self.batch)

    def finished(self) -> Batch:
        """The samples as networks take them, on the device where these are."""
        batch = self.batch
        if self.turns is not None and batch.cameras is not None:
            batch = replace(batch, cameras=replace(batch.cameras, images=turned(batch.cameras.images, self.turns)))
        if self.points is not None:
            batch = replace(batch, points=self.points.finished())
        return batch if self.depth is None else replace(batch, depth=self.depth.finished())


def _numbers(size: Int[Tensor, "groups"], total: int) -> Int[Tensor, "total"]:
    """Group of each member where groups of these sizes, `total` members in all, follow each other."""
    return torch.arange(len(size), device=size.device).repeat_interleave(size, output_size=total)


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """A batch whose tensors lie one after the other in one buffer.

    A loader process passes it on as one file, pinning is one copy, and so is the way to a GPU.
    """

    buffer: Tensor
    """Bytes of the tensors in the order of `layout`."""
    layout: RawSample
    """The samples with tensors on the device "meta"."""

    def __len__(self) -> int:
        return len(self.layout)

    def pin_memory(self) -> "PackedBatch":
        """The batch in page-locked memory, from where a GPU copies on its own; loaders call it."""
        return replace(self, buffer=self.buffer.pin_memory())

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch on a device, finished there; `non_blocking` lets the host go on while pinned memory is copied."""
        buffer, offset = self.buffer.to(device, non_blocking=non_blocking), 0

        def tensor(value: Any) -> Any:
            nonlocal offset
            if not isinstance(value, Tensor):
                return value._each(tensor)
            first, offset = offset, offset + _room(value)
            return _view(buffer, first, value)

        return self.layout._each(tensor).finished()


def collate(samples: Sequence[Batch | RawSample]) -> Batch:
    """One batch of several (of one sample each, or more).

    Raises:
        ValueError: if there are none, or some have a part that others lack.
    """
    return pack(samples).to("cpu")


def pack(samples: Sequence[Batch | RawSample]) -> PackedBatch:
    """`collate` for loaders; in one of their processes the buffer is shared memory.

    Raises:
        ValueError: as `collate`.
    """
    if not samples:
        raise ValueError("a batch needs at least one sample")
    raw = [sample if isinstance(sample, RawSample) else RawSample(batch=sample) for sample in samples]
    batches = [
        sample.batch
        if (points := sample.batch.points) is None
        else replace(sample.batch, points=replace(points, sample=points.sample + first))
        for sample, first in zip(raw, accumulate(map(len, raw), initial=0), strict=False)
    ]
    places: list[tuple[Tensor, list[Tensor]]] = []

    def join(tensors: list[Tensor]) -> Tensor:
        """The place of tensors that follow each other along their first axis, in the memory layout of the first."""
        shape = (sum(map(len, tensors)), *tensors[0].shape[1:])
        _, *strides = torch.empty_like(tensors[0], device="meta").stride()
        place = torch.empty_strided(shape, (math.prod(shape[1:]), *strides), dtype=tensors[0].dtype, device="meta")
        places.append((place, tensors))
        return place

    def joined(records: Sequence[Any], name: str) -> Any:
        """A field of all samples as one, None if none has it: tensors follow each other, a number is the largest there
        is, all else is the same for all."""
        parts = [part for record in records if (part := getattr(record, name)) is not None]
        if parts and len(parts) != len(samples):
            raise ValueError(f"{len(parts)} of {len(samples)} samples have {name}: they come from different data")
        first = parts[0] if parts else None
        if isinstance(first, Tensor):
            return join(parts)
        if isinstance(first, tuple):
            return tuple(join(list(each)) for each in zip(*parts, strict=True))
        if is_dataclass(first) and not isinstance(first, type):
            return replace(first, **{field.name: joined(parts, field.name) for field in fields(first)})
        return max(parts) if isinstance(first, int) else first

    batch = Batch(
        boxes=tuple(boxes._each(lambda tensor: join([tensor])) for sample in batches for boxes in sample.boxes),
        meta=tuple(meta for sample in batches for meta in sample.meta),
        **{field.name: joined(batches, field.name) for field in fields(Batch) if field.name not in ("boxes", "meta")},
    )
    layout = RawSample(batch=batch, **{name: joined(raw, name) for name in ("points", "depth", "turns")})
    size, offset = sum(_room(place) for place, _ in places), 0
    storage = torch.UntypedStorage._new_shared(size, device="cpu") if get_worker_info() else torch.UntypedStorage(size)
    buffer = torch.tensor([], dtype=torch.uint8).set_(storage)
    for place, tensors in places:
        for part, tensor in zip(_view(buffer, offset, place).split([*map(len, tensors)]), tensors, strict=True):
            part.copy_(tensor)
        offset += _room(place)
    return PackedBatch(buffer=buffer, layout=layout)


def _room(tensor: Tensor) -> int:
    """Bytes of a tensor in a buffer."""
    return -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT


def _view(buffer: Tensor, first: int, like: Tensor) -> Tensor:
    """The tensor that begins at a byte of a buffer."""
    return buffer[first : first + like.nbytes].view(like.dtype).as_strided(like.shape, like.stride())
