"""Camera images the way the published loaders read them: all decoded, resized and normalised, with PIL and NumPy.

Source: docs/methods/bevdepth.md#image-augmentation and docs/methods/bevdepth.md#normalisation.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image
from torch import Tensor

from dualdistill.data.images import ImageView

MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)
STD = np.array([58.395, 57.12, 57.375], dtype=np.float32)


def pil_pixels(path: Path, view: ImageView) -> Image.Image:
    """Decode, resize the whole image, crop, mirror, rotate."""
    image = Image.open(path).convert("RGB")
    # 1472.0000000001 and 1471.9999999999 are both meant to be 1472
    width, height = (int(side * view.resize + 1e-6) for side in image.size)
    x, y = view.crop
    image = image.resize((width, height)).crop((x, y, x + view.size[1], y + view.size[0]))
    if view.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.rotate(view.rotate_deg)


def pil_input(path: Path, view: ImageView) -> Float32[Tensor, "3 h w"]:
    """What the network gets: normalised, channels first."""
    normal = (np.asarray(pil_pixels(path, view)).astype(np.float32) - MEAN) / STD
    return torch.from_numpy(normal.transpose(2, 0, 1).copy())
