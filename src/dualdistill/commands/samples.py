"""One sample of a data root, by token or number."""

import numpy as np
import torch

from dualdistill.data.images import stored_image
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.errors import UserError
from dualdistill.structures import Batch, Cameras
from dualdistill.train.assemble import split_names
from dualdistill.train.loaded_detector import LoadedDetector
from dualdistill.visualize.cameras import Photographs


def position_of(index: NuscenesIndex, sample: str, split: str | None) -> int:
    """Position of a sample in the index, by token or by number within the split (None: validation). Raises UserError if
    there is no such sample."""
    if sample in index.sample_token:
        return list(index.sample_token).index(sample)
    split = split if split is not None else split_names(index.version)[1]
    positions = samples_of_split(index, split)
    if not (sample.isascii() and sample.isdigit()) or len(sample) > 9 or int(sample) >= len(positions):
        raise UserError(
            f"--sample {sample} is neither the token of a sample of {index.root} nor a number from 0 to "
            f"{len(positions) - 1} within split {split!r}."
        )
    return int(positions[int(sample)])


def read_sample(trained: LoadedDetector, index: NuscenesIndex, sample: str, split: str | None) -> Batch:
    """The sample with the sensors that the detector needs, as a batch of one."""
    return trained.dataset(index, split, np.array([position_of(index, sample, split)]))[0]


def photographs_of(index: NuscenesIndex, cameras: Cameras, token: str) -> Photographs:
    """The images of a sample at their own size, to draw on."""
    rows = index.sample_cameras[position_of(index, token, None)]
    images = [stored_image(index.path(row), index.image_size(row)) for row in rows]
    return Photographs.of(cameras, torch.stack(images))
