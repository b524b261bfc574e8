"""`train --teacher-cache`: outputs of a frozen teacher on disk in place of its forward pass.

With a cache, a distilled step costs little more than one of the student alone: one safetensors file per sample and flip
of the BEV frame, features in the precision of the recipe, heat maps and box codes in float32, so that pseudo boxes are
those of the live teacher. Convolutional features are not rotation-equivariant, so cached features cannot be
re-augmented: each flip has a file of its own, and what varies continuously or is drawn anew each epoch (rotation,
scale, translation, sweeps) cannot be cached at all.
"""

import hashlib
import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from dualdistill.data.collate import RawSample, pack
from dualdistill.data.config import BevAugmentation
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.plain import to_plain
from dualdistill.files import draft, require_room, size_text
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.ops.frozen import FrozenModule
from dualdistill.report.progress import progress
from dualdistill.structures import Batch, BevOutput, HeadOutput
from dualdistill.train.step import LiveTeacher

LAYOUT = 2
"""Version of the files; a change makes every cache be filled anew."""

CachePrecision = Literal["fp32", "fp16", "bf16"]
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

Flip = tuple[bool, bool]
"""Whether x, and whether y, of the BEV frame is mirrored."""

_CHECKSUM = "crc32"  # in the metadata of a file
_SPARE = 1.02  # room asked for over room needed: headers and file system blocks
_BATCH = 4  # samples of a forward pass while a cache is filled


class TeacherCache:
    """A folder with the outputs of one teacher for one data configuration: `output` of `load` stands in for its forward
    pass."""

    def __init__(
        self, root: Path, identity: dict[str, Any], example: BevOutput, maps: tuple[str, ...], precision: CachePrecision
    ):
        """Args:
        root: Caches of other identities may lie there.
        identity: What the outputs depend on, as plain JSON: the teacher's weights, the data.
        example: The live teacher's output for any sample.
        maps: Maps of `BevOutput` that are kept: "canvas", "stage0", ..., "neck". The others are NaN when read back.
        """
        facts = {"layout": LAYOUT, "maps": sorted(maps), "precision": precision, **identity}
        self.folder = root / hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
        self.extent, self.maps, self.precision = example.extent, maps, precision
        self.shapes = {name: tuple(tensor.shape[1:]) for name, tensor in _maps(example).items()}
        self.names = (*maps, "heatmap", "regression")
        """The tensors of a file."""
        self.bytes_of_one = sum(tensor[0].nbytes for tensor in self._parts(example).values())
        """Disk space of one sample and flip."""

    def require_room(self, count: int) -> None:
        """Raises UserError where `count` more files do not fit on the disk."""
        remedy = "Free some, give another --teacher-cache, set training.cache_precision=bf16, or fewer flips "
        remedy += "(data.bev_augmentation.flip_x=0)."
        what = f"The teacher cache ({count} more files)"
        require_room(self.folder, count * self.bytes_of_one * _SPARE, what, remedy)

    def path(self, token: str, flip: Flip) -> Path:
        return self.folder / token[:2] / f"{token}-{'x' * flip[0]}{'y' * flip[1]}.safetensors"

    def write(self, batch: Batch, output: BevOutput) -> None:
        """Keep the outputs for the samples of a batch; files are written whole and renamed."""
        parts = self._parts(output)
        for number, (meta, flip) in enumerate(zip(batch.meta, flips_of(batch), strict=True)):
            # Copies: a slice would drag the memory of its whole batch along.
            one = {n: part[number].cpu().clone(memory_format=torch.contiguous_format) for n, part in parts.items()}
            with draft(self.path(meta.token, flip), sync=False) as temporary:
                save_file(one, temporary, metadata={_CHECKSUM: _checksum(one)})

    def load(self, batch: Batch) -> tuple[Tensor, ...]:
        """What is kept of the outputs for a batch, by `names`, on the CPU; maps with channels last. Raises UserError
        for a sample that is missing or damaged."""
        flips = flips_of(batch)
        samples = [self._read(self.path(meta.token, flip)) for meta, flip in zip(batch.meta, flips, strict=True)]
        return tuple(torch.stack([sample[name] for sample in samples]) for name in self.names)

    def output(self, kept: tuple[Tensor, ...], head: Callable[[Tensor], HeadOutput]) -> BevOutput:
        """The output that was kept (as of `load`, on any device), with the teacher's head for distillers that apply it;
        its maps are in channels-last layout and in the cache's precision."""
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
        predictions = output.predictions
        return parts | {"heatmap": predictions.heatmap.float(), "regression": predictions.regression.float()}

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
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


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


class CachedTeacher(FrozenModule):
    """Outputs from a `TeacherCache`, with the teacher's live head for distillers that call it. A batch of `WithTeacher`
    samples brings them along; for others the files are read here."""

    def __init__(self, head: nn.Module, cache: TeacherCache):
        super().__init__(head)
        self.cache = cache

    def forward(self, batch: Batch) -> BevOutput:
        kept = batch.teacher
        if kept is None:
            kept = tuple(part.to(batch.augmented_from_bev.device) for part in self.cache.load(batch))
        return self.cache.output(kept, head=self.module)


def refuse_uncacheable(experiment: Experiment) -> None:
    """Raises UserError, with the settings to change, where the teacher's output for a sample is not one of a few."""
    if experiment.distiller is None:
        raise UserError("--teacher-cache has no effect: this recipe does not distil.")
    data, ranges = experiment.data, experiment.data.bev_augmentation
    drawn = {
        "data.bev_augmentation.rotation=0,0": any(ranges.rotation),
        "data.bev_augmentation.scale=1,1": tuple(ranges.scale) != (1.0, 1.0),
        "data.bev_augmentation.translation_sd=0": ranges.translation_sd,
        "data.random_sweeps=false": data.random_sweeps,
    }
    if any(drawn.values()):
        raise UserError(
            "This recipe's teacher gets another scene each epoch (rotated, scaled, moved, or of other sweeps): "
            "there is nothing to cache. Train without --teacher-cache, or change the recipe (and its result) with\n  "
            + " ".join(f"--set {change}" for change, needed in drawn.items() if needed)
            + "\nFlips may stay: each has its own file in the cache."
        )


def flips_drawn(ranges: BevAugmentation) -> list[Flip]:
    """The flips that a training can meet."""
    x, y = ([False] * (p < 1) + [True] * (p > 0) for p in (ranges.flip_x, ranges.flip_y))
    return list(product(x, y))


def cached_maps(experiment: Experiment, output: BevOutput) -> tuple[str, ...]:
    """The maps of the teacher that a cache keeps: the coarse stages and the neck always, so that most distillers share
    one cache; the canvas and the finest stage, most of the bytes, only where the distiller requires them."""
    every = tuple(_maps(output))
    assert experiment.distiller is not None
    required = experiment.distiller.requires.teacher_maps
    return every if required is None else tuple(name for name in every if name in (*every[2:], *required))


def open_cache(
    console: Console,
    fabric: Fabric,
    root: Path,
    experiment: Experiment,
    index: NuscenesIndex,
    split: str,
    teacher_sha256: str,
    workers: int,
    teacher: CenterPoint,
) -> CachedTeacher:
    """The complete cache of a training as its teacher source: prints how large it is, then fills what is missing.

    All processes call it together: each fills its share, on its device. Raises UserError if this experiment's teacher
    cannot be cached, or the disk is too small.
    """
    refuse_uncacheable(experiment)
    data, config, device = experiment.data, experiment.training, fabric.device
    positions = samples_of_split(index, split)
    tokens = [index.sample_token[int(position)] for position in positions]
    blind = replace(data, cameras=False, depth=False, depth_instance=False, instances=None, class_balanced=False)
    datasets: dict[Flip, NuscenesDataset] = {}
    for x, y in flips_drawn(data.bev_augmentation):
        fixed = BevAugmentation(rotation=(0.0, 0.0), scale=(1.0, 1.0), flip_x=float(x), flip_y=float(y))
        one = replace(blind, bev_augmentation=fixed)
        datasets[x, y] = NuscenesDataset(index, one, positions, training=True, seed=0)
    live = LiveTeacher(teacher, config.teacher_precision).to(device)
    example = live(next(iter(datasets.values()))[0, 0].to(device))
    plain = to_plain(experiment)["data"]
    identity = {
        "teacher": teacher_sha256,
        "teacher_precision": config.teacher_precision,
        "tables": [str(index.root), index.version, index.folder.name],
        **{name: plain[name] for name in ("bev_frame", "num_sweeps", "point_range", "virtual_points")},
    }
    cache = TeacherCache(root, identity, example, cached_maps(experiment, example), config.cache_precision)
    _fill(console, fabric, cache, datasets, tokens, live, workers)
    return CachedTeacher(teacher.head, cache)


def _fill(
    console: Console,
    fabric: Fabric,
    cache: TeacherCache,
    datasets: dict[Flip, NuscenesDataset],
    tokens: list[str],
    live: LiveTeacher,
    workers: int,
) -> None:
    """Make what is missing of a cache."""
    missing = {flip: [i for i, t in enumerate(tokens) if not cache.path(t, flip).is_file()] for flip in datasets}
    count, whole, each = sum(map(len, missing.values())), len(tokens) * len(datasets), cache.bytes_of_one
    console.print(
        f"teacher cache {cache.folder}: {len(tokens)} samples x {len(datasets)} flips x {size_text(each)} = "
        f"{size_text(whole * each)}, {size_text(count * each)} of it to be made"
    )
    cache.require_room(count)
    # By number, not by place in the list: processes that look later miss fewer.
    rank, world = fabric.global_rank, fabric.world_size
    shares = {flip: mine for flip, items in missing.items() if (mine := [i for i in items if i % world == rank])}
    done = 0
    with progress(console, "filling the teacher cache") as report:
        for flip, items in shares.items():
            batches = still_missing(cache, tokens, flip, items)
            for packed in DataLoader(datasets[flip], batch_sampler=batches, collate_fn=pack, num_workers=workers):
                batch = packed.to(fabric.device)
                cache.write(batch, live(batch))
                done += len(batch)
                report(done, sum(map(len, shares.values())))
    fabric.barrier()


def still_missing(
    cache: TeacherCache, tokens: list[str], flip: Flip, items: list[int]
) -> Iterator[list[tuple[int, int]]]:
    """Batches of `items` that are still missing when their turn comes: trainings that start side by side share the
    work, each beginning elsewhere."""
    first = random.SystemRandom().randrange(len(items))
    items = items[first:] + items[:first]
    for start in range(0, len(items), _BATCH):
        if batch := [(0, i) for i in items[start : start + _BATCH] if not cache.path(tokens[i], flip).is_file()]:
            yield batch
