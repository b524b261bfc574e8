"""Annotations and detections of many samples as columns of numbers, in the global frame."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float64, Int64


@dataclass(frozen=True, kw_only=True)
class GlobalBoxes:
    """Boxes of any number of samples, one row each; the order of the rows decides ties."""

    sample: Int64[np.ndarray, "boxes"]
    """Position in the list of evaluated samples."""
    label: Int64[np.ndarray, "boxes"]
    """Index into `structures.CLASSES` (not the order in which the devkit prints them)."""
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

    def select(self, index: Int64[np.ndarray, "_"] | Bool[np.ndarray, "_"]) -> "GlobalBoxes":
        """The rows at `index` (integers in any order, or a mask)."""
        rows = np.flatnonzero(index) if index.dtype == bool else index  # a mask is read once, not once a column
        return GlobalBoxes(**{f.name: getattr(self, f.name).take(rows, axis=0) for f in fields(self)})

    @property
    def yaw(self) -> Float64[np.ndarray, "boxes"]:
        """Direction of the box's x axis in the ground plane, radians."""
        w, x, y, z = self.rotation.T
        return np.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z)

    @classmethod
    def concatenate(cls, parts: Sequence["GlobalBoxes"]) -> "GlobalBoxes":
        """All rows of `parts`, in order (no parts, no rows)."""
        parts = [cls.empty(), *parts]
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    @classmethod
    def empty(cls) -> "GlobalBoxes":
        integers, floats = np.zeros(0, np.int64), np.zeros((0, 4))
        return cls(
            sample=integers,
            label=integers,
            center=floats[:, :3],
            size=floats[:, :3],
            rotation=floats,
            velocity=floats[:, :2],
            attribute=integers,
            num_points=integers,
        )


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Scored boxes of a detector."""

    boxes: GlobalBoxes
    score: Float64[np.ndarray, "boxes"]
    """Confidence, 0 to 1; of equal ones the later row counts as the better (as in the devkit)."""

    def __post_init__(self) -> None:
        if len(self.boxes) != len(self.score):
            raise ValueError(f"expected one score a box, got {len(self.score)} for {len(self.boxes)} boxes")

    def __len__(self) -> int:
        return len(self.score)

    def select(self, index: Int64[np.ndarray, "_"] | Bool[np.ndarray, "_"]) -> "Detections":
        """The rows at `index` (integers in any order, or a mask)."""
        return Detections(boxes=self.boxes.select(index), score=self.score[index])

    @classmethod
    def concatenate(cls, parts: Sequence["Detections"]) -> "Detections":
        """All rows of `parts`, in order (no parts, no rows)."""
        score = np.concatenate([np.zeros(0), *(part.score for part in parts)])
        return cls(boxes=GlobalBoxes.concatenate([part.boxes for part in parts]), score=score)


@dataclass(frozen=True, kw_only=True)
class Racks:
    """Bicycle racks: places where bicycles and motorcycles are not evaluated."""

    sample: Int64[np.ndarray, "racks"]
    center: Float64[np.ndarray, "racks 3"]
    size: Float64[np.ndarray, "racks 3"]
    """Length, width, height, metres."""
    rotation: Float64[np.ndarray, "racks 4"]
    """Quaternion w, x, y, z."""

    @classmethod
    def none(cls) -> "Racks":
        floats = np.zeros((0, 4))
        return cls(sample=np.zeros(0, np.int64), center=floats[:, :3], size=floats[:, :3], rotation=floats)


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """The evaluated samples and all of their annotations, before any filter."""

    sample_tokens: tuple[str, ...]
    ego_position: Float64[np.ndarray, "samples 3"]
    """Global position of the ego vehicle when LIDAR_TOP of each sample was taken, metres."""
    scene: Int64[np.ndarray, "samples"]
    """Scene of each sample; samples of one scene are not independent."""
    boxes: GlobalBoxes
    racks: Racks

    def __post_init__(self) -> None:
        if len(self.sample_tokens) != len(self.ego_position):
            raise ValueError(
                f"expected one position a sample, got {len(self.ego_position)} for {len(self.sample_tokens)}"
            )
