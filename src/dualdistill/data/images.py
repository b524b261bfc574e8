"""Camera files, and a cache of their decoded pixels on local disk."""

import hashlib
import math
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dualdistill.data.augment import ImageView, apply_view, resized_size
from dualdistill.data.config import DataConfig
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.sweeps import training_frames
from dualdistill.errors import UserError
from dualdistill.files import draft, read_bytes, require_room, size_text

Pixels = UInt8[np.ndarray, "h w 3"]

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
"""Pillow's names of pixels that become RGB without loss of range."""


@dataclass(frozen=True)
class ImageCache:
    """A folder with decoded images of one data root: pixels are read there instead of decoded, most of what a loader
    does.

    Kept is what the JPEG decoder gives, at a scale of n/8 and before any augmentation: samples stay equal bit by bit,
    and trainings of all recipes share the files. A file is made when its image is first wanted, and again when the size
    or time of the image has changed. Images other than JPEGs are decoded as ever.
    """

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
        try:
            status = path.stat()
        except OSError:
            return decode()
        file, source = self._file(path, shape), f"{status.st_size} bytes, {status.st_mtime_ns} ns"
        with suppress(SafetensorError, OSError), safe_open(file, framework="np") as opened:
            pixels = opened.get_tensor("pixels")
            if opened.metadata() == {"source": source, "adler32": _checksum(pixels)}:
                return pixels
        pixels = decode()
        if pixels.shape[:2] == shape:
            with draft(file, sync=False) as temporary:
                described = {"source": source, "adler32": _checksum(pixels)}
                save_file({"pixels": torch.from_numpy(pixels)}, temporary, described)
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


def _checksum(pixels: Pixels) -> str:
    return f"{zlib.adler32(np.ascontiguousarray(pixels).data):08x}"


def load_image(
    path: Path,
    view: ImageView,
    stored_size: tuple[int, int],
    *,
    draft: bool = False,
    source: str = "sample_data.json",
    cache: ImageCache | None = None,
    upright: bool = False,
) -> UInt8[Tensor, "3 h w"]:
    """RGB pixels of an image file as the network sees them; in memory the channels of a pixel lie together.

    Args:
        stored_size: Height and width in the tables, to which the intrinsics refer.
        source: Origin of `stored_size`, for messages.
        draft: Let the JPEG decoder make the image as small as still leaves enough pixels, in steps of 1/8.
        upright: As in `apply_view`.

    Raises:
        UserError: if the file is missing, cut off, no image, or not of the stored size.
    """
    eighths = eighths_of(stored_size, resized_size(stored_size, view.resize)) if draft else 8
    decode, size = partial(_decode, path, stored_size, eighths, source), decoded_size(stored_size, eighths)
    pixels = decode() if cache is None else cache.pixels(path, size, decode)
    scale = 1.0 if pixels.shape[:2] == stored_size else eighths / 8
    return apply_view(torch.from_numpy(pixels).permute(2, 0, 1), view, stored_size, scale, upright=upright)


def stored_image(path: Path, stored_size: tuple[int, int]) -> UInt8[Tensor, "3 h w"]:
    """RGB pixels of an image file as they are. Arguments and errors as in `load_image`."""
    return load_image(path, ImageView(resize=1.0, crop=(0, 0), size=stored_size), stored_size)


def _decode(path: Path, stored_size: tuple[int, int], eighths: int, source: str) -> Pixels:
    """The pixels of an image file; of a JPEG at a scale of `eighths` / 8. Arguments and errors as in `load_image`."""
    content, image = read_bytes(path), None
    try:
        if simplejpeg.is_jpeg(content):
            height, width = simplejpeg.decode_jpeg_header(content)[:2]
        else:
            image = Image.open(BytesIO(content))
            (height, width), frames = (image.height, image.width), getattr(image, "n_frames", 1)
            if image.mode not in _MODES or frames > 1:  # a conversion would clip others than 8 bits
                raise ValueError(f"{frames} pictures of mode {image.mode}: expected one, of 8 bits a channel")
        if (height, width) != stored_size:
            raise UserError(
                f"image {path} has {width}x{height} pixels, but {stored_size[1]}x{stored_size[0]} in {source}: file "
                "and calibration do not belong together"
            )
        if image is not None:
            return np.array(image.convert("RGB"))
        # libjpeg-turbo as Pillow has it, the same pixels, but in half the time, and smaller by any multiple of 1/8
        height, width = decoded_size(stored_size, eighths)
        return simplejpeg.decode_jpeg(content, min_height=height, min_width=width)
    except (OSError, ValueError, Image.DecompressionBombError) as error:  # truncated and unidentified files alike
        why = "it is of no known kind of image" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"cannot read image {path} ({why}); restore or replace it") from error


def decoded_size(stored_size: tuple[int, int], eighths: int) -> tuple[int, int]:
    """Height and width of a JPEG that is decoded at a scale of `eighths` / 8."""
    height, width = stored_size
    return -(-height * eighths // 8), -(-width * eighths // 8)


def eighths_of(stored_size: tuple[int, int], target: tuple[int, int]) -> int:
    """The smallest scale, in eighths, at which a decoded image has the pixels of the target (h, w), 8 at most."""
    sides = list(zip(stored_size, target, strict=True))
    return next((n for n in range(1, 8) if all(side * n >= 8 * wanted for side, wanted in sides)), 8)
