"""The instance masks of a synthetic world, drawn by ray casting.

They are perfect: no object is missed, no class is wrong, every score is 1. They exist for key frames only.
"""

import hashlib
from pathlib import Path, PurePosixPath
from typing import TypedDict

import numpy as np
import torch
from PIL import Image

from dualdistill.data.build_annotations import CLASS_OF_CATEGORY
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.virtual_points.masks import ImageInstances
from dualdistill.errors import UserError
from dualdistill.files import decode_json, read_bytes

EXPLANATION = Path("masks/instance_masks.json")


class _Object(TypedDict):
    value: int
    category: str


class _Explained(TypedDict):
    filename: str
    instances: list[_Object]


class SyntheticMasks:
    """Instance masks from the PNG files below `masks/` of a root."""

    def __init__(self, index: NuscenesIndex):
        """
        Raises:
            UserError: if the root has no such masks.
        """
        path = index.root / EXPLANATION
        if not path.is_file():
            raise UserError(
                f"{index.root} holds no instance masks: there is no {path}, which only synthetic worlds have. Use "
                "`--masks maskrcnn --weights FILE` for real images."
            )
        content = read_bytes(path)
        self.index = index
        self.identity = f"synthetic masks, sha256 {hashlib.sha256(content).hexdigest()}"
        self._explained = {
            record["filename"]: record["instances"] for record in decode_json(content, list[_Explained], str(path))
        }

    def __call__(self, row: int) -> ImageInstances:
        image = PurePosixPath(self.index.data_filename[row])
        size = self.index.image_size(row)
        filename = f"masks/{image.parent.name}/{image.stem}.png"
        objects = self._explained.get(filename, [])
        if not objects:
            return ImageInstances.none(size)
        try:
            with Image.open(self.index.root / filename) as opened:
                values = torch.from_numpy(np.array(opened))
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read mask {self.index.root / filename} ({error}); make the world again") from error
        wanted = torch.tensor([each["value"] for each in objects], dtype=values.dtype)
        names = [CLASS_OF_CATEGORY.get(each["category"], "") for each in objects]
        return ImageInstances.of(values == wanted[:, None, None], names, torch.ones(len(objects)))
