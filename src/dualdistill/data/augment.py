"""Augmentation of images and BEV (docs/methods/bevdepth.md#image-augmentation): its draws, its matrices, its pixels.

`ImageView` holds the numbers of one camera's augmentation: `apply_view` applies them to pixels, `ImageView.matrix` is
the same as a matrix. Mirroring and rotation can be left to `turned`, which a GPU does for a whole batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from dualdistill.data.config import BevAugmentation, ImageAugmentation
from dualdistill.geometry.cameras import bev_augmentation, image_augmentation

_UP = 1 + 1e-9
"""Against ratios whose product with the size falls short of a whole number by the last bit."""


@dataclass(frozen=True, kw_only=True)
class ImageView:
    """Augmentation of a stored image: resized, cropped, mirrored, rotated, in that order."""

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

    def turn(self) -> tuple[int, int, int, int, int, int]:
        """Mirroring and rotation as `turned` takes them: a, b, c, d, e, f for which (a x + b y + c) >> 16 is the column
        in the crop that pixel (x, y) of the result comes from, and (d x + e y + f) >> 16 the row. Where these lie
        outside the crop it is black.

        Pillow rotates by the same numbers.
        """
        height, width = self.size
        cos, sin = (round(side(math.radians(self.rotate_deg)), 15) for side in (math.cos, math.sin))
        middle = width / 2, height / 2
        # Through the middle of the first pixel, (0.5, 0.5).
        x = middle[0] - cos * middle[0] + sin * middle[1] + 0.5 * cos - 0.5 * sin
        y = middle[1] - sin * middle[0] - cos * middle[1] + 0.5 * sin + 0.5 * cos
        a, b, c, d, e, f = (math.floor(each * 65536 + 0.5) for each in (cos, -sin, x, sin, cos, y))
        return (-a, -b, (width << 16) - 1 - c, d, e, f) if self.flip else (a, b, c, d, e, f)


def resized_size(stored_size: tuple[int, int], resize: float) -> tuple[int, int]:
    """Height and width after the resizing of a stored image (height, width)."""
    height, width = stored_size
    # 1472.0000000001 and 1471.9999999999 are both meant to be 1472
    return int(height * resize + 1e-6), int(width * resize + 1e-6)


def draw_view(
    ranges: ImageAugmentation,
    size: tuple[int, int],
    stored_size: tuple[int, int],
    generator: np.random.Generator | None,
) -> ImageView:
    """How one camera is seen in one sample; the crop is aligned with the bottom
    (docs/methods/bevdepth.md#image-augmentation).

    Args:
        size: Height and width of the network's image.
        stored_size: Of the file.
        generator: None at test time: fixed scale, crop in the middle, neither flip nor rotation.
    """
    height, width = size
    base = width / stored_size[1]
    offset = ranges.test_scale if generator is None else generator.uniform(*ranges.scale)
    resized_height, resized_width = resized_size(stored_size, base + offset)
    spare = max(0, resized_width - width)
    y = resized_height - height
    if generator is None:
        return ImageView(resize=base + offset, crop=(spare // 2, y), size=size)
    return ImageView(
        resize=base + offset,
        crop=(int(generator.uniform(0, spare)), y),
        size=size,
        flip=bool(generator.random() < ranges.flip),
        rotate_deg=generator.uniform(*ranges.rotation),
    )


def draw_bev(ranges: BevAugmentation, generator: np.random.Generator) -> Float[Tensor, "4 4"]:
    """`augmented_from_bev` of one training sample; float64."""
    matrix = bev_augmentation(
        angle=generator.uniform(*ranges.rotation),
        scale=generator.uniform(*ranges.scale),
        flip_x=bool(generator.random() < ranges.flip_x),
        flip_y=bool(generator.random() < ranges.flip_y),
        dtype=torch.float64,
    )
    if ranges.translation_sd:
        matrix[:3, 3] = torch.from_numpy(generator.normal(0.0, ranges.translation_sd, 3))
    return matrix


def apply_view(
    pixels: UInt8[Tensor, "3 stored_h stored_w"],
    view: ImageView,
    stored_size: tuple[int, int],
    scale: float = 1.0,
    *,
    upright: bool = False,
) -> UInt8[Tensor, "3 h w"]:
    """The pixel operations of a view: bicubic resizing, nearest neighbour for the rotation.

    Args:
        pixels: In the stored size, or decoded smaller: the result has the same geometry.
        scale: Ratio of decoded to stored size. (Not that of the shapes: sides are rounded up to whole pixels.)
        upright: Leave mirroring and rotation to `turned`.
    """
    height, width = resized_size(stored_size, view.resize)
    (x, y), (crop_height, crop_width) = view.crop, view.size
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + crop_width, width), min(y + crop_height, height)
    if left >= right or top >= bottom:
        return pixels.new_zeros(crop_height, crop_width, 3).permute(2, 0, 1)
    if (height, width) != pixels.shape[1:]:
        # The exact ratio is given, not that of the shapes.
        ratio = [side / (scale * stored) * _UP for side, stored in zip((height, width), stored_size, strict=True)]
        pixels = _resized(pixels, (height, width), (ratio[0], ratio[1]), top, right)
    seen = pixels[:, top:bottom, left:right]
    if seen.shape[1:] != view.size:  # beyond the image it is black
        canvas = pixels.new_zeros(crop_height, crop_width, 3).permute(2, 0, 1)
        canvas[:, top - y : bottom - y, left - x : right - x] = seen
        seen = canvas
    return seen if upright or not (view.flip or view.rotate_deg) else _turned_image(seen, view.turn())


def _resized(
    pixels: UInt8[Tensor, "3 _ _"], size: tuple[int, int], ratio: tuple[float, float], top: int, right: int
) -> UInt8[Tensor, "3 h columns"]:
    """As Pillow resizes, bicubic, to a grey level or two, in a third of the time: rows above `top` are left undefined,
    and columns from `right` on may be left out."""
    (height, width), (own_height, own_width) = size, pixels.shape[1:]
    resize = torch.ops.aten._upsample_bicubic2d_aa.out

    def empty(height: int, width: int) -> Tensor:
        # `F.interpolate` would give the same pixels in another layout, which takes longer than the resizing.
        return torch.empty(1, 3, height, width, dtype=torch.uint8, memory_format=torch.channels_last)

    seen = pixels[None].contiguous(memory_format=torch.channels_last)
    if width != own_width:
        first = top  # The filter reaches two pixels up, of the smaller image.
        if height != own_height:
            first = max(0, int((top + 0.5) / ratio[0] - 2 * max(1.0, 1 / ratio[0])) - 1)
        columns = width if right == own_width else right  # the operator leaves sides alone that stay as they are
        wide = empty(own_height, columns)
        resize(seen[:, :, first:], [own_height - first, columns], False, 1.0, ratio[1], out=wide[:, :, first:])
        seen = wide
    if height != own_height:
        tall = empty(height, seen.shape[3])
        resize(seen, [height, seen.shape[3]], False, ratio[0], 1.0, out=tall)
        seen = tall
    return seen[0]


def turned(
    images: UInt8[Tensor, "batch frame cam 3 h w"], turns: Int[Tensor, "batch cam 6"]
) -> UInt8[Tensor, "batch frame cam 3 h w"]:
    """Crops mirrored and rotated, both frames of a camera alike; nearest neighbour. In memory the channels of a pixel
    lie together.

    Args:
        turns: `ImageView.turn` of each camera, int32.
    """
    pixels = images.movedim(-3, -1).contiguous()
    if images.device.type == "cpu":
        result = torch.empty_like(pixels)
        every = turns[:, None].expand(-1, images.shape[1], -1, -1).flatten(0, 2).tolist()
        for image, turn, place in zip(images.flatten(0, 2), every, result.flatten(0, 2), strict=True):
            place.copy_(_turned_image(image, turn).movedim(0, -1))
        return result.movedim(-1, -3)
    height, width = images.shape[-2:]
    x, y = torch.arange(width, device=images.device), torch.arange(height, device=images.device)[:, None]
    a, b, c, d, e, f = turns.to(torch.int64)[..., None, None].unbind(dim=2)  # each batch cam 1 1
    column, row = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = torch.where(inside, row * width + column, 0).flatten(2)[:, None, :, :, None]
    place = place.expand(-1, images.shape[1], -1, -1, 3)
    result = pixels.flatten(3, 4).gather(3, place).view(pixels.shape)
    return (result * inside[:, None, ..., None]).movedim(-1, -3)


def _turned_image(image: UInt8[Tensor, "3 h w"], turn: Sequence[int]) -> UInt8[Tensor, "3 h w"]:
    a, b, c, d, e, f = (each / 65536 for each in turn)
    matrix = (a, b, c - (a + b) / 2, d, e, f - (d + e) / 2)  # Pillow adds the half pixel
    stored = Image.fromarray(image.permute(1, 2, 0).numpy())
    seen = stored.transform(stored.size, Image.Transform.AFFINE, matrix)
    return torch.from_numpy(np.array(seen)).permute(2, 0, 1)
