"""Where the output of a frozen teacher comes from: the network itself, or a cache of its outputs on disk.

With a cache, a distilled step costs little more than one of the student alone: one safetensors file per sample and flip
of the BEV frame, features in the precision of the recipe, heat maps and box codes in float32, so that pseudo boxes are
those of the live teacher. Convolutional features are not rotation-equivariant, so cached features cannot be
re-augmented: each flip has a file of its own, and what varies continuously or is drawn anew each epoch (rotation,
scale, translation, sweeps) cannot be cached at all.
"""

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from dualdistill.data.collate import RawSample
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.errors import UserError
from dualdistill.experiment.training import TeacherPrecision
from dualdistill.files import draft, require_room
from dualdistill.ops.frozen import FrozenModule
from dualdistill.structures import Batch, BevOutput, HeadOutput

LAYOUT = 2
"""Version of the files; a change makes every cache be filled anew."""

CachePrecision = Literal["fp32", "fp16", "bf16"]
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

Flip = tuple[bool, bool]
"""Whether x, and whether y, of the BEV frame is mirrored."""

_CHECKSUM = "crc32"
"""Name of the checksum in the metadata of a file."""

_SPARE = 1.02
"""Room asked for over room needed: headers and file system blocks."""


@dataclass(frozen=True, kw_only=True)
class TeacherCache:
    """A folder with the outputs of one teacher for one data configuration: `output` of `load` stands in for its forward
    pass."""

    folder: Path
    extent: tuple[float, float, float, float]
    maps: tuple[str, ...]
    """Maps of `BevOutput` that are kept: "canvas", "stage0", ..., "neck". The others are NaN when read back."""
    shapes: dict[str, tuple[int, ...]]
    """Channels, rows and columns of every map."""
    precision: CachePrecision = "bf16"

    @classmethod
    def under(
        cls, root: Path, identity: dict[str, Any], output: BevOutput, maps: tuple[str, ...], precision: CachePrecision
    ) -> "TeacherCache":
        """The cache of `identity` (plain JSON: teacher's weights, data) below `root`; caches of others may lie there.
        `output`: the live teacher's, for any sample."""
        facts = {"layout": LAYOUT, "maps": sorted(maps), "precision": precision, **identity}
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in _maps(output).items()}
        return cls(folder=root / key, extent=output.extent, maps=maps, shapes=shapes, precision=precision)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors of a file."""
        return (*self.maps, "heatmap", "regression")

    def bytes_of_one(self, output: BevOutput) -> int:
        """Disk space of one sample and flip."""
        return sum(tensor[0].nbytes for tensor in self._parts(output).values())

    def require_room(self, count: int, each: int) -> None:
        """Raises UserError where `count` more files of `each` bytes do not fit on the disk."""
        remedy = (
            "Free some, give another --teacher-cache, set training.cache_precision=bf16, or fewer flips "
            "(data.bev_augmentation.flip_x=0)."
        )
        require_room(self.folder, count * each * _SPARE, f"The teacher cache ({count} more files)", remedy)

    def path(self, token: str, flip: Flip) -> Path:
        return self.folder / token[:2] / f"{token}-{'x' * flip[0]}{'y' * flip[1]}.safetensors"

    def holds(self, token: str, flip: Flip) -> bool:
        return self.path(token, flip).is_file()

    def write(self, batch: Batch, output: BevOutput) -> None:
        """Keep the outputs for the samples of a batch; files are written whole and renamed."""
        parts = self._parts(output)
        for number, (meta, flip) in enumerate(zip(batch.meta, flips_of(batch), strict=True)):
            # Copies: a slice would drag the memory of its whole batch along.
            one = {
                name: part[number].cpu().clone(memory_format=torch.contiguous_format) for name, part in parts.items()
            }
            with draft(self.path(meta.token, flip), sync=False) as temporary:
                save_file(one, temporary, metadata={_CHECKSUM: _checksum(one)})

    def load(self, batch: Batch) -> tuple[Tensor, ...]:
        """What is kept of the outputs for a batch, by `names`, on the CPU; maps with channels last. Raises UserError
        for a sample that is missing or damaged."""
        samples = [
            self._read(self.path(meta.token, flip)) for meta, flip in zip(batch.meta, flips_of(batch), strict=True)
        ]
        return tuple(torch.stack([sample[name] for sample in samples]) for name in self.names)

    def output(self, kept: tuple[Tensor, ...], head: Callable[[Tensor], HeadOutput]) -> BevOutput:
        """The output that was kept; its maps are in channels-last layout and in the cache's precision.

        Args:
            kept: As of `load`, on any device.
            head: The teacher's own, for distillers that apply it to other maps.
        """
        parts = dict(zip(self.names, kept, strict=True))
        heatmap = parts["heatmap"]

        def of(name: str) -> Tensor:
            if name in self.maps:
                return parts[name].permute(0, 3, 1, 2)
            return torch.full((), torch.nan, device=heatmap.device).expand(len(heatmap), *self.shapes[name])

        return BevOutput(
            extent=self.extent,
            canvas=of("canvas"),
            stages=tuple(of(name) for name in sorted(self.shapes) if name.startswith("stage")),
            neck=of("neck"),
            predictions=HeadOutput(heatmap=heatmap, regression=parts["regression"]),
            head=head,
        )

    def _parts(self, output: BevOutput) -> dict[str, Tensor]:
        """The tensors of an output that are written, each with its batch axis first; maps with channels last."""
        every = _maps(output)
        parts = {name: every[name].permute(0, 2, 3, 1).to(_DTYPES[self.precision]) for name in self.maps}
        parts["heatmap"] = output.predictions.heatmap.float()
        parts["regression"] = output.predictions.regression.float()
        return parts

    def _read(self, path: Path) -> dict[str, Tensor]:
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in self.names}
                if (file.metadata() or {}).get(_CHECKSUM) != _checksum(tensors):
                    raise OSError("its content does not fit its checksum")
                return tensors
        except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"The teacher cache lacks {path} or cannot read it ({error}): delete the file where there is one and "
                "start again with the same --teacher-cache; it fills what is missing."
            ) from None


def _checksum(tensors: dict[str, Tensor]) -> str:
    """CRC-32 of the content of tensors, by name."""
    total = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


class WithTeacher(Dataset[Batch]):
    """Samples with the teacher's output from a complete cache, read where the samples are: in loader processes."""

    def __init__(self, dataset: NuscenesDataset, cache: TeacherCache):
        self.dataset, self.cache = dataset, cache

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        return self.__getitems__([key])[0].finished()

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[RawSample]:
        """The samples as loader processes pass them on."""
        samples = self.dataset.__getitems__(keys)
        return [replace(raw, batch=replace(raw.batch, teacher=self.cache.load(raw.batch))) for raw in samples]


def _maps(output: BevOutput) -> dict[str, Tensor]:
    """The maps of an output by name, fine to coarse."""
    stages = {f"stage{number}": stage for number, stage in enumerate(output.stages)}
    return {"canvas": output.canvas, **stages, "neck": output.neck}


def flips_of(batch: Batch) -> list[Flip]:
    """Flips of the BEV frame of each sample. Raises ValueError for a BEV augmentation that is more than flips."""
    linear = batch.augmented_from_bev.detach().cpu()
    signs = torch.sign(torch.diagonal(linear[:, :2, :2], dim1=1, dim2=2))
    rebuilt = torch.diag_embed(torch.cat([signs, signs.new_ones(len(signs), 2)], dim=1))
    if not torch.allclose(linear, rebuilt, atol=1e-6):
        raise ValueError("a teacher cache holds flips only; this batch is rotated, scaled or moved")
    return [(bool(x < 0), bool(y < 0)) for x, y in signs.tolist()]


@runtime_checkable
class TeacherSource(Protocol):
    """A module without parameters that gives the teacher's output for a batch, without gradient."""

    def __call__(self, batch: Batch) -> BevOutput: ...


class LiveTeacher(FrozenModule):
    """The teacher's forward pass."""

    def __init__(self, teacher: nn.Module, precision: TeacherPrecision = "fp32"):
        """Args: `precision` is that of the forward pass alone; the head stays float32 for distillers that call it."""
        # In the layout of the student's maps: what compares them need not transpose.
        super().__init__(channels_last(teacher))
        self.precision = precision

    def forward(self, batch: Batch) -> BevOutput:
        # Not inference mode: its tensors cannot be compared with a map that has a gradient.
        device = batch.augmented_from_bev.device.type
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.module(batch)


class CachedTeacher(FrozenModule):
    """Outputs from a `TeacherCache`, with the teacher's live head for distillers that call it.

    A batch of `WithTeacher` samples brings them along; for others the files are read here.
    """

    def __init__(self, head: nn.Module, cache: TeacherCache):
        super().__init__(head)
        self.cache = cache

    def forward(self, batch: Batch) -> BevOutput:
        kept = batch.teacher
        if kept is None:
            kept = tuple(part.to(batch.augmented_from_bev.device) for part in self.cache.load(batch))
        return self.cache.output(kept, head=self.module)


def channels_last(module: nn.Module) -> nn.Module:
    """Weights of 2D convolutions stored channels last, as maps then are: faster on CPUs and on tensor cores.

    Not `module.to(memory_format=…)`, which fails on the five axes of sparse convolution kernels.
    """
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module
