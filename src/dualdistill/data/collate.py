"""Samples into a batch whose tensors share one memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from dualdistill.data.raw import RawSample
from dualdistill.structures import Batch, Points, named_tensors

_ALIGNMENT = 64
"""Bytes; tensors begin at multiples of it."""


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """A batch whose tensors lie one after the other in one buffer.

    A loader process passes it on as one file, pinning is one copy, and so is the way to a GPU. `to` gives the batch,
    with what loaders leave out (`RawSample`) computed on its device.
    """

    buffer: Tensor
    """Bytes of the tensors in the order of `layout`, then the number of points of each sample (int64)."""
    layout: RawSample
    """The samples with tensors on the device "meta". `Points.sample` follows from the numbers of points: in the buffer
    it would be a quarter of all bytes of the points."""

    def __len__(self) -> int:
        return len(self.layout)

    def pin_memory(self) -> "PackedBatch":
        """The batch in page-locked memory, from where a GPU copies on its own; loaders call it."""
        return replace(self, buffer=self.buffer.pin_memory())

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch on a device; `non_blocking` lets the host go on while pinned memory is copied."""
        buffer = self.buffer.to(device, non_blocking=non_blocking)
        offset, finished = 0, self.layout.batch.points

        def tensor(value: Any) -> Any:
            nonlocal offset
            if not isinstance(value, Tensor):
                return value._each(tensor)
            if finished is not None and value is finished.sample:
                counts = buffer[len(buffer) - 8 * len(self) :].view(torch.int64)
                return torch.arange(len(self), device=device).repeat_interleave(counts, output_size=len(value))
            first, offset = offset, offset + _room(value)
            return buffer[first : first + value.nbytes].view(value.dtype).as_strided(value.shape, value.stride())

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
    batches = [sample.batch for sample in raw]
    sources: dict[int, list[Tensor]] = {}

    def join(tensors: list[Tensor]) -> Tensor:
        """The place of tensors that follow each other along their first axis, in the memory layout of the first."""
        shape = (sum(map(len, tensors)), *tensors[0].shape[1:])
        _, *strides = torch.empty_like(tensors[0], device="meta").stride()
        size = math.prod(shape[1:])
        place = torch.empty_strided(shape, (size, *strides), dtype=tensors[0].dtype, device="meta")
        sources[id(place)] = tensors
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
        if isinstance(first, Points):
            features = join([part.features for part in parts])
            return Points(features=features, sample=torch.empty(len(features), dtype=torch.int64, device="meta"))
        if is_dataclass(first) and not isinstance(first, type):
            return replace(first, **{field.name: joined(parts, field.name) for field in fields(first)})
        return max(parts) if isinstance(first, int) else first

    batch = Batch(
        boxes=tuple(boxes._each(lambda tensor: join([tensor])) for sample in batches for boxes in sample.boxes),
        meta=tuple(meta for sample in batches for meta in sample.meta),
        **{field.name: joined(batches, field.name) for field in fields(Batch) if field.name not in ("boxes", "meta")},
    )
    layout = RawSample(batch=batch, **{name: joined(raw, name) for name in ("points", "depth", "turns")})
    places = [place for _, place in named_tensors(layout) if id(place) in sources]
    packed = PackedBatch(buffer=_buffer(sum(map(_room, places)) + 8 * len(layout)), layout=layout)
    counts = [torch.bincount(s.points.sample, minlength=len(s)) for s in batches if s.points is not None]
    if counts:
        packed.buffer[len(packed.buffer) - 8 * len(layout) :].view(torch.int64).copy_(torch.cat(counts))
    offset = 0
    for place in places:
        target = packed.buffer[offset : offset + place.nbytes].view(place.dtype).as_strided(place.shape, place.stride())
        offset += _room(place)
        first = 0
        for source in sources[id(place)]:
            target[first : first + len(source)].copy_(source)
            first += len(source)
    return packed


def _room(tensor: Tensor) -> int:
    """Bytes of a tensor in the buffer."""
    return -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT


def _buffer(size: int) -> Tensor:
    if get_worker_info() is not None:
        return torch.tensor([], dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(size, device="cpu"))
    return torch.empty(size, dtype=torch.uint8)
