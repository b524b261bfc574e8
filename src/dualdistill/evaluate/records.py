"""Annotations and detections of many samples as columns of numbers, in the global frame."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

BoxesT = TypeVar("BoxesT", bound="GlobalBoxes")


@dataclass(frozen=True, kw_only=True)
class GlobalBoxes:
    """Boxes of any number of samples, one row each; the order of the rows decides ties."""

    sample: Int64[np.ndarray, "boxes"]
    """Position in the list of evaluated samples."""
    label: Int64[np.ndarray, "boxes"]
    """Index into `structures.CLASSES` (not the order in which the devkit prints them); -1 for a rack."""
    center: Float64[np.ndarray, "boxes 3"]
    """Gravity centre, metres."""
    size: Float64[np.ndarray, "boxes 3"]
    """Length, width, height, metres (result files have width, length, height)."""
    rotation: Float64[np.ndarray, "boxes 4"]
    """Quaternion w, x, y, z; any length."""
    velocity: Float64[np.ndarray, "boxes 2"]
    """Metres a second along global x and y; NaN where unknown."""
    attribute: Int64[np.ndarray, "boxes"]
    """Index into `protocol.ATTRIBUTES`; -1 where there is none."""
    num_points: Int64[np.ndarray, "boxes"]
    """LiDAR and radar points inside; -1 where unknown. Boxes with 0 are not evaluated."""

    def __len__(self) -> int:
        return len(self.sample)

    def select(self: BoxesT, index: Int64[np.ndarray, "_"] | Bool[np.ndarray, "_"]) -> BoxesT:
        """The rows at `index` (integers in any order, or a mask)."""
        rows = np.flatnonzero(index) if index.dtype == bool else index  # a mask is read once, not once a column
        return type(self)(**{f.name: getattr(self, f.name).take(rows, axis=0) for f in fields(self)})

    @property
    def yaw(self) -> Float64[np.ndarray, "boxes"]:
        """Direction of the box's x axis in the ground plane, radians."""
        w, x, y, z = self.rotation.T
        return np.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z)

    @classmethod
    def concatenate(cls: type[BoxesT], parts: Sequence[BoxesT]) -> BoxesT:
        """All rows of `parts`, in order (no parts, no rows)."""
        parts = [cls.empty(), *parts]
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    @classmethod
    def empty(cls: type[BoxesT]) -> BoxesT:
        floats = {"center": (0, 3), "size": (0, 3), "rotation": (0, 4), "velocity": (0, 2), "score": (0,)}
        names = [f.name for f in fields(cls)]
        return cls(**{n: np.zeros(floats[n]) if n in floats else np.zeros(0, np.int64) for n in names})


@dataclass(frozen=True, kw_only=True)
class Detections(GlobalBoxes):
    """Scored boxes of a detector."""

    score: Float64[np.ndarray, "boxes"]
    """Confidence, 0 to 1; of equal ones the later row counts as the better (as in the devkit)."""

    @classmethod
    def of(cls, boxes: GlobalBoxes, score: Float64[np.ndarray, "boxes"]) -> "Detections":
        """Boxes with their scores."""
        return cls(**vars(boxes), score=score)


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """The evaluated samples and all of their annotations, before any filter."""

    sample_tokens: tuple[str, ...]
    ego_position: Float64[np.ndarray, "samples 3"]
    """Global position of the ego vehicle when LIDAR_TOP of each sample was taken, metres."""
    scene: Int64[np.ndarray, "samples"]
    """Scene of each sample; samples of one scene are not independent."""
    boxes: GlobalBoxes
    racks: GlobalBoxes
    """Bicycle racks, in which bicycles and motorcycles are not evaluated."""

    def __post_init__(self) -> None:
        if len(self.sample_tokens) != len(self.ego_position):
            raise ValueError(
                f"expected one position a sample, got {len(self.ego_position)} for {len(self.sample_tokens)}"
            )


def spans(
    first: Int[np.ndarray, "groups"], count: Int[np.ndarray, "groups"]
) -> tuple[Int64[np.ndarray, "members"], Int64[np.ndarray, "members"]]:
    """Group and number of each member where group `i` has the `count[i]` numbers from `first[i]` on."""
    group = np.repeat(np.arange(len(count)), count)
    return group, np.arange(len(group)) + (first - (np.cumsum(count) - count))[group]
