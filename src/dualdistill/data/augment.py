"""Draws of the augmentations: numbers from a generator become views and matrices."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dualdistill.data.config import BevAugmentation, ImageAugmentation
from dualdistill.data.images import ImageView, resized_size
from dualdistill.geometry.cameras import bev_augmentation


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
