"""Instance masks of one image, and their sources (docs/methods/mvp.md#mask-sources): image files here, Mask R-CNN in
`maskrcnn`."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer
from PIL import Image
from torch import Tensor

from dualdistill.data.build import CLASS_OF_CATEGORY, LIDAR
from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import UserError
from dualdistill.files import decode_json, read_bytes

PAINT_CLASSES = (
    "car",
    "truck",
    "trailer",
    "bus",
    "construction_vehicle",
    "bicycle",
    "motorcycle",
    "pedestrian",
    "traffic_cone",
    "barrier",
)
"""Order of the ten class columns of painted and virtual points: nuImages', not that of `structures.CLASSES`."""

LABEL_CHANNELS = len(PAINT_CLASSES) + 1
"""Ten classes, one of them 1, and the score."""

EXPLANATION = Path("masks/instance_masks.json")
LEGEND = "classes.json"
LEAST_AREA = 1e-4
"""Smallest area of an instance in a class map, as a share of the image."""


@dataclass(frozen=True, kw_only=True)
class ImageInstances:
    """Objects found by a 2D model in one image; where masks overlap, the first one counts."""

    masks: Bool[Tensor, "instances h w"]
    """One mask per instance, at the size of the stored image."""
    klass: Int[Tensor, "instances"]
    """Index into `PAINT_CLASSES`."""
    score: Float[Tensor, "instances"]
    """Scores in (0, 1]."""

    def __len__(self) -> int:
        return len(self.klass)

    @property
    def labels(self) -> Float[Tensor, "instances 11"]:
        """Class columns and score of each instance."""
        return torch.cat([F.one_hot(self.klass, len(PAINT_CLASSES)).float(), self.score[:, None].float()], dim=1)

    @classmethod
    def none(cls, size: tuple[int, int]) -> "ImageInstances":
        """No instances, for an image of size (height, width)."""
        return cls(
            masks=torch.zeros(0, *size, dtype=torch.bool), klass=torch.zeros(0, dtype=torch.long), score=torch.zeros(0)
        )

    @classmethod
    def of(cls, masks: Bool[Tensor, "instances h w"], names: Sequence[str], score: Tensor) -> "ImageInstances":
        """Instances with class names; those with an empty mask, or of none of the ten classes, are left out."""
        known = torch.tensor([name in PAINT_CLASSES for name in names], dtype=torch.bool)
        kept = known & masks.flatten(1).any(dim=1)
        klass = [PAINT_CLASSES.index(name) for name, keep in zip(names, kept.tolist(), strict=True) if keep]
        return cls(masks=masks[kept], klass=torch.tensor(klass, dtype=torch.long), score=score[kept].float())


@runtime_checkable
class InstanceMasks(Protocol):
    """A source of instance masks for the camera images of one index."""

    @property
    def identity(self) -> str:
        """Description that determines the masks, such as the hash of weights; stored with the files made from them."""
        ...

    def __call__(self, row: int) -> ImageInstances:
        """Instances in the image of one sensor record; none for images that the source does not cover."""
        ...


class _Object(TypedDict):
    value: int
    category: str


class _Explained(TypedDict):
    filename: str
    instances: list[_Object]


class SyntheticMasks:
    """The masks of a synthetic world, drawn by ray casting, from the PNG files below `masks/` of a root.

    They are perfect: no object is missed, no class is wrong, every score is 1. They exist for key frames only.
    """

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
        records = decode_json(content, list[_Explained], str(path))
        self._explained = {record["filename"]: record["instances"] for record in records}

    def __call__(self, row: int) -> ImageInstances:
        image, size = PurePosixPath(self.index.data_filename[row]), self.index.image_size(row)
        filename = f"masks/{image.parent.name}/{image.stem}.png"
        objects = self._explained.get(filename)
        if not objects:
            return ImageInstances.none(size)
        masks = _numbers(self.index.root / filename, size) == np.array([[[each["value"]]] for each in objects])
        names = [CLASS_OF_CATEGORY.get(each["category"], "") for each in objects]
        return ImageInstances.of(torch.from_numpy(masks), names, torch.ones(len(names)))


class SemanticMasks:
    """Connected regions of class maps in a folder that mirrors the root: `samples/CAM_FRONT/<image name>.png`.

    The maps are those of any semantic segmenter, which hold the class of each pixel, not its object: a region of one
    class counts as one instance, with score 1. A class map has one channel of class numbers and any size;
    `classes.json` beside them names the class of each number that counts, such as `{"13": "car"}`. An image without a
    class map has no instances.
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
        images = [_map_name(index.data_filename[row]) for row in np.flatnonzero(index.data_channel != LIDAR)]
        maps = [name for name in images if (folder / name).is_file()]
        if not maps:
            example = next(iter(images), "samples/CAM_FRONT/<image name>.png")
            raise UserError(f"{folder} has no class map for an image of {index.root}, such as {example}")
        digest = hashlib.sha256(content)
        for name in maps:
            digest.update((folder / name).read_bytes())
        self.identity = f"semantic class maps, sha256 {digest.hexdigest()}"

    def __call__(self, row: int) -> ImageInstances:
        from scipy import ndimage  # takes a while

        path, size = self.folder / _map_name(self.index.data_filename[row]), self.index.image_size(row)
        if not path.is_file():
            return ImageInstances.none(size)
        classes, masks, names = _numbers(path, size), [np.zeros((0, *size), dtype=bool)], list[str]()
        for number, name in self._names.items():
            regions, count = ndimage.label(classes == number, structure=np.ones((3, 3)))
            areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
            large = 1 + np.flatnonzero(areas >= LEAST_AREA * classes.size)
            masks.append(regions == large[:, None, None])
            names += [name] * len(large)
        return ImageInstances.of(torch.from_numpy(np.concatenate(masks)), names, torch.ones(len(names)))


def _map_name(image: str) -> str:
    return str(Path(image).with_suffix(".png"))


def _numbers(path: Path, size: tuple[int, int]) -> Integer[np.ndarray, "h w"]:
    """The number of each pixel of an image file, enlarged or reduced to (height, width)."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "I;16", "I"):
                raise UserError(f"{path} has mode {image.mode}: expected one channel of class numbers")
            return np.array(image.resize(size[::-1], Image.Resampling.NEAREST))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the masks {path} ({error}): restore the file, or make it again") from error
