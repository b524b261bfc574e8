"""Instance masks from the class maps of any semantic segmenter (docs/methods/mvp.md#mask-sources).

Such maps hold the class of each pixel, not its object: a connected region of one class counts as one instance, with
score 1.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from dualdistill.data.index import NuscenesIndex
from dualdistill.data.virtual_points.masks import PAINT_CLASSES, ImageInstances
from dualdistill.errors import UserError
from dualdistill.files import read_bytes

LEGEND = "classes.json"
LEAST_AREA = 1e-4
"""Smallest area of an instance, as a share of the image."""


class SemanticMasks:
    """Connected regions of class maps in a folder that mirrors the root: `samples/CAM_FRONT/<image name>.png`.

    A class map has one channel of class numbers and any size; `classes.json` beside them names the class of each number
    that counts, such as `{"13": "car"}`. An image without a class map has no instances.
    """

    def __init__(self, index: NuscenesIndex, folder: Path):
        """
        Raises:
            UserError: for a folder without a valid `classes.json`, and for one without a class map of this root.
        """
        legend = folder / LEGEND
        try:
            content = read_bytes(legend)
            self._names = {int(number): str(name) for number, name in json.loads(content).items()}
        except (UserError, ValueError, AttributeError, RecursionError) as error:
            raise UserError(
                f'cannot read {legend} ({error}): expected the class of each number of the maps, as {{"13": "car"}}'
            ) from error
        if unknown := sorted(set(self._names.values()) - set(PAINT_CLASSES)):
            raise UserError(f"{legend} names {', '.join(unknown)}; the classes are {', '.join(PAINT_CLASSES)}")
        self.index, self.folder = index, folder
        maps = [name for name in map(_map_name, index.data_filename) if (folder / name).is_file()]
        if not maps:
            raise UserError(f"{folder} has no class map for an image of {index.root}, such as {_example(index)}")
        digest = hashlib.sha256(content)
        for name in maps:
            digest.update((folder / name).read_bytes())
        self.identity = f"semantic class maps, sha256 {digest.hexdigest()}"

    def __call__(self, row: int) -> ImageInstances:
        height, width = size = self.index.image_size(row)
        path = self.folder / _map_name(self.index.data_filename[row])
        if not path.is_file():
            return ImageInstances.none(size)
        try:
            with Image.open(path) as opened:
                if opened.mode not in ("L", "P", "I;16", "I"):
                    raise UserError(f"{path} has mode {opened.mode}: expected one channel of class numbers")
                classes = np.array(opened.resize((width, height), Image.Resampling.NEAREST))
        except OSError as error:
            raise UserError(f"cannot read class map {path} ({error})") from error
        masks, names = [], []
        for number, name in self._names.items():
            regions, count = ndimage.label(classes == number, structure=np.ones((3, 3)))
            areas = np.bincount(regions.ravel(), minlength=count + 1)
            for region in range(1, count + 1):
                if areas[region] >= LEAST_AREA * height * width:
                    masks.append(torch.from_numpy(regions == region))
                    names.append(name)
        if not masks:
            return ImageInstances.none(size)
        return ImageInstances.of(torch.stack(masks), names, torch.ones(len(names)))


def _map_name(image: str) -> str:
    return str(Path(image).with_suffix(".png"))


def _example(index: NuscenesIndex) -> str:
    rows = index.sample_cameras[index.sample_cameras >= 0]
    return _map_name(index.data_filename[int(rows.flat[0])]) if rows.size else "samples/CAM_FRONT/<image name>.png"
