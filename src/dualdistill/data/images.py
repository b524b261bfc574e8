"""Camera files, and the pixel side of the image augmentation (spec bevdepth 10.5).

`ImageView` holds the numbers of one augmentation: `load_image` moves the pixels by them, `ImageView.matrix`
says where each of them went.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from dualdistill.errors import UserError
from dualdistill.geometry.cameras import image_augmentation


@dataclass(frozen=True, kw_only=True)
class ImageView:
    """How the network sees a stored image: resized, cropped, mirrored, rotated, in that order."""

    resize: float
    """Factor on both sides; sizes in between are truncated to whole pixels."""
    crop: tuple[int, int]
    """x and y of the crop's first pixel in the resized image; where the crop reaches beyond it is black."""
    size: tuple[int, int]
    """Height and width of the crop."""
    flip: bool = False
    rotate_deg: float = 0.0
    """Counter-clockwise about the centre of the crop; corners become black."""

    def matrix(self) -> Float[Tensor, "4 4"]:
        """`augmented_from_image`, on (u, v, depth, 1)."""
        return image_augmentation(
            resize=self.resize, crop=self.crop, size=self.size, flip=self.flip, rotate_deg=self.rotate_deg
        )


def resized_size(stored_size: tuple[int, int], resize: float) -> tuple[int, int]:
    """Height and width after the resizing of a stored image (height, width)."""
    height, width = stored_size
    # 1472.0000000001 and 1471.9999999999 are both meant to be 1472
    return int(height * resize + 1e-6), int(width * resize + 1e-6)


def load_image(
    path: Path, view: ImageView, stored_size: tuple[int, int], *, draft: bool = False
) -> UInt8[Tensor, "3 h w"]:
    """RGB pixels of an image file as the network sees them.

    Args:
        stored_size: Height and width that the tables (and so the intrinsics) speak of.
        draft: Let the JPEG decoder halve (or quarter) the image where that still leaves enough pixels.

    Raises:
        UserError: if the file is missing, cut off, no image, or not of the stored size.
    """
    try:
        with Image.open(path) as image:
            if image.size != stored_size[::-1]:
                raise UserError(
                    f"image {path} has {image.size[0]}x{image.size[1]} pixels, sample_data.json says "
                    f"{stored_size[1]}x{stored_size[0]}: file and calibration do not belong together"
                )
            if draft:
                _decode_smaller(image, resized_size(stored_size, view.resize))
            rgb = image.convert("RGB")
    except OSError as error:  # missing, truncated and unidentified files alike
        raise UserError(f"cannot read image {path} ({error}); restore it from the archive") from error
    pixels = np.array(apply_view(rgb, view, stored_size))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _decode_smaller(image: Image.Image, target: tuple[int, int]) -> None:
    """Set the JPEG decoder to the largest power of two that divides the size and leaves at least `target`."""
    width, height = image.size
    for factor in (8, 4, 2):
        if width % factor == height % factor == 0 and height // factor >= target[0] and width // factor >= target[1]:
            image.draft("RGB", (width // factor, height // factor))
            return


def apply_view(image: Image.Image, view: ImageView, stored_size: tuple[int, int]) -> Image.Image:
    """The pixel operations of a view: bicubic resizing, nearest neighbour for the rotation.

    Args:
        image: Of the stored size, or decoded smaller: the result has the same geometry.
    """
    height, width = resized_size(stored_size, view.resize)
    x, y = view.crop
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + view.size[1], width), min(y + view.size[0], height)
    # Only what the crop shows is resized; the filter reaches beyond `box`, so edges are those of the whole.
    per_x, per_y = image.width / width, image.height / height
    box = (left * per_x, top * per_y, right * per_x, bottom * per_y)
    image = image.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=box)
    image = image.crop((x - left, y - top, x - left + view.size[1], y - top + view.size[0]))
    if view.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.rotate(view.rotate_deg) if view.rotate_deg else image
