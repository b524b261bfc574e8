"""Decoded camera images on local disk: pixels are read there instead of decoded, most of what a loader does.

Kept is what the JPEG decoder gives, at a scale of n/8 and before any augmentation: samples stay equal bit by bit, and
trainings of all recipes share the files. A file is made when its image is first wanted, and again when the size or time
of the image has changed. Images other than JPEGs are decoded as ever.
"""

import hashlib
import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dualdistill.data.config import DataConfig
from dualdistill.data.frames import training_frames
from dualdistill.data.images import Pixels, decoded_size, eighths_of, resized_size
from dualdistill.data.index import NuscenesIndex
from dualdistill.files import draft, require_room, size_text


@dataclass(frozen=True)
class ImageCache:
    """A folder with decoded images of one data root."""

    folder: Path

    @classmethod
    def under(cls, folder: Path, index: NuscenesIndex) -> "ImageCache":
        """The cache of a root's images below `folder`; those of other roots and decoders may lie there."""
        key = f"{index.root.resolve()} simplejpeg {simplejpeg.__version__}"
        return cls(folder / hashlib.sha256(key.encode()).hexdigest()[:24])

    def pixels(self, path: Path, shape: tuple[int, int], decode: Callable[[], Pixels]) -> Pixels:
        """The pixels of an image from its file; from `decode` where that is missing, damaged or of another image.

        Raises:
            UserError: for a file that cannot be written, and what `decode` raises.
        """
        file, source = self._file(path, shape), _identity(path)
        if source is not None and (kept := _read(file, source)) is not None:
            return kept
        pixels = decode()
        if source is not None and pixels.shape[:2] == shape:
            with draft(file, sync=False) as temporary:
                save_file({"pixels": torch.from_numpy(pixels)}, temporary, {**source, "adler32": _checksum(pixels)})
        return pixels

    def require_room(self, index: NuscenesIndex, positions: Iterable[int], config: DataConfig) -> str:
        """Number and size of the images that a training may read, for a reader.

        Raises:
            UserError: if those that are not kept yet do not fit on the disk.
        """
        rows = sorted({row for at in positions for frame in training_frames(index, at, config) for row in frame})
        count = total = missing = 0
        for row in rows:
            for shape in _shapes(config, index.image_size(row)):
                size = 3 * math.prod(shape)
                count, total = count + 1, total + size
                missing += 0 if self._file(index.path(row), shape).exists() else size
        text = f"image cache {self.folder}: {len(rows)} images in {count} files, {size_text(total)} at most"
        remedy = "Free some, give another --image-cache, or leave it out."
        require_room(self.folder, missing, f"{text}: it", remedy)
        return f"{text}, {size_text(missing)} of it to be made"

    def _file(self, path: Path, shape: tuple[int, int]) -> Path:
        return self.folder / f"{shape[1]}x{shape[0]}" / path.parent.name / f"{path.stem}.safetensors"


def _shapes(config: DataConfig, stored_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Sizes in which the images of a training are decoded."""
    if not config.draft_decoding:
        return [stored_size]
    base = config.image_size[1] / stored_size[1]
    low, high = (eighths_of(stored_size, resized_size(stored_size, base + x)) for x in config.image_augmentation.scale)
    return [decoded_size(stored_size, eighths) for eighths in range(low, high + 1)]


def _identity(path: Path) -> dict[str, str] | None:
    """What changes with an image file; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return {"source": f"{status.st_size} bytes, {status.st_mtime_ns} ns"}


def _read(file: Path, source: dict[str, str]) -> Pixels | None:
    try:
        with safe_open(file, framework="np") as opened:
            metadata, pixels = opened.metadata(), opened.get_tensor("pixels")
    except (SafetensorError, OSError):
        return None
    return pixels if metadata == {**source, "adler32": _checksum(pixels)} else None


def _checksum(pixels: Pixels) -> str:
    return f"{zlib.adler32(np.ascontiguousarray(pixels).data):08x}"
