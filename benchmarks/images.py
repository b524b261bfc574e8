"""From camera files to the network's input, beside the loaders of the published code."""

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.references.images import MEAN, STD, pil_input
from dualdistill.data.augment import draw_view
from dualdistill.data.config import ImageAugmentation
from dualdistill.data.images import ImageView, load_image
from dualdistill.report.timing import Row, Variant, measure

STORED = (900, 1600)
NETWORK = (256, 704)


def run(quick: bool) -> list[Row]:
    """Six images, as at test time and as in training; real ones too where `$DUALDISTILL_NUSCENES` is set."""
    repeats = 3 if quick else 9
    with tempfile.TemporaryDirectory() as folder:
        rows = image_rows(write_images(Path(folder), 6), "synthetic", repeats=repeats)
    root = os.environ.get("DUALDISTILL_NUSCENES")
    if root:
        paths = sorted(Path(root).glob("samples/CAM_*/*.jpg"))
        rows += image_rows(paths[:: max(1, len(paths) // 6)][:6], "nuScenes", repeats=repeats)
    return rows


def image_rows(paths: Sequence[Path], content: str, *, repeats: int) -> list[Row]:
    # The official BEVDepth's view at test time; while training, each camera draws its own.
    tested = draw_view(ImageAugmentation(test_scale=0.0), NETWORK, STORED, None)
    drawn = [draw_view(ImageAugmentation(), NETWORK, STORED, np.random.default_rng([7, i])) for i in range(len(paths))]
    kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1e3
    size = f"{len(paths)} {content} images of {kilobytes:.0f} kB, {STORED[1]}x{STORED[0]} to {NETWORK[1]}x{NETWORK[0]}"
    rows = []
    for when, views in (("at test time", [tested] * len(paths)), ("while training", drawn)):
        forms: dict[str, Callable[[Path, ImageView], Tensor]] = {
            "PIL at full size (peers)": pil_input,
            "decoded at full size": lambda path, view: normalised(load_image(path, view, STORED)),
            "decoded smaller": lambda path, view: normalised(load_image(path, view, STORED, draft=True)),
        }
        variants = [Variant(name=name, run=partial(_all, form, paths, views)) for name, form in forms.items()]
        rows += measure(f"images {when} ({size}, {torch.get_num_threads()} threads)", variants, repeats=repeats)
    return rows


def _all(form: Callable[[Path, ImageView], Tensor], paths: Sequence[Path], views: Sequence[ImageView]) -> list[Tensor]:
    return list(map(form, paths, views))


def normalised(pixels: Tensor) -> Tensor:
    """Network input from the loader's bytes, as the student's image network computes it."""
    mean, std = torch.from_numpy(MEAN)[:, None, None], torch.from_numpy(STD)[:, None, None]
    return (pixels.float() - mean) / std


def write_images(folder: Path, count: int, stored_size: tuple[int, int] = STORED) -> list[Path]:
    """JPEG files with structure of several sizes and some grain: some 150 kB each at 1600x900, as in nuScenes."""
    height, width = stored_size
    paths = []
    for number in range(count):
        random = np.random.default_rng(number)
        pixels = random.normal(0, 3, (height, width, 1))
        for cells, weight in ((4, 0.5), (16, 0.3), (64, 0.2)):
            coarse = random.integers(0, 256, (cells, cells * 16 // 9, 3), dtype=np.uint8)
            pixels = pixels + weight * np.asarray(Image.fromarray(coarse).resize((width, height)), dtype=np.float64)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=85)
    return paths
