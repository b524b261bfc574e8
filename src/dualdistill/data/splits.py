"""What an index holds for training and evaluation: samples of a split, resampled by class (CBGS,
docs/methods/centerpoint.md#class-balanced-resampling), and the boxes of each."""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import UserError
from dualdistill.files import read_json
from dualdistill.geometry.boxes import transform_boxes
from dualdistill.geometry.transforms import rotation_from_quaternion
from dualdistill.structures import CLASSES, Boxes


@cache
def official_splits() -> dict[str, tuple[str, ...]]:
    """Scene names of the official splits: train, val, test, mini_*, train_detect and train_track.

    Facts of the data set, taken from nuscenes-devkit 1.2.0 (Apache-2.0, `nuscenes/utils/splits.py`) and stored as
    ranges: `"1-2 41"` is scene-0001, scene-0002, scene-0041.
    """
    splits = {}
    for split, text in json.loads(files("dualdistill.data").joinpath("official_splits.json").read_text()).items():
        ends = [[int(end) for end in span.split("-")] for span in text.split()]
        splits[split] = tuple(f"scene-{number:04d}" for span in ends for number in range(span[0], span[-1] + 1))
    return splits


def custom_splits(index: NuscenesIndex) -> dict[str, tuple[str, ...]]:
    """Splits of `splits.json` in a version folder: {split: [scene names]}. Raises UserError for another form."""
    path = index.root / index.version / "splits.json"
    if not path.is_file():
        return {}
    splits = read_json(path, dict[str, list[str]], "expected {split: [scene names]}")
    return {split: tuple(names) for split, names in splits.items()}


def samples_of_split(index: NuscenesIndex, split: str) -> Int[np.ndarray, "samples"]:
    """Positions of the samples whose scene belongs to a split; of a cut root, whatever is there.

    A root's own `splits.json` goes before the official lists; `all` means every sample.

    Raises:
        UserError: for a split that is unknown or has no scene in this root.
    """
    splits = official_splits() | custom_splits(index)
    if split == "all" and "all" not in splits:
        return np.arange(len(index))
    present = list(index.scene_name)
    wanted = set(splits.get(split, ()))
    if scenes := [position for position, name in enumerate(present) if name in wanted]:
        return np.flatnonzero(np.isin(index.sample_scene, scenes))
    here = ", ".join([*(name for name, names in splits.items() if not set(names).isdisjoint(present)), "all"])
    shown = ", ".join(present[:8]) + (f", … ({len(present)} in all)" if len(present) > 8 else "")
    problem = f"{split!r} {'has no scene in' if split in splits else 'is not a split of'} {index.root}"
    raise UserError(f"{problem} ({index.version}). Splits with scenes there: {here}. Scenes there: {shown}")


def samples_of_scenes(
    index: NuscenesIndex, split: str, scenes: Sequence[str] = (), fraction: float = 1.0
) -> Int[np.ndarray, "samples"]:
    """Positions of the samples of some scenes of a split.

    Args:
        scenes: Names; none takes all.
        fraction: Of these scenes, evenly spread, at least one.

    Raises:
        UserError: for a scene that the split lacks, a fraction that is none, and as `samples_of_split`.
    """
    samples = samples_of_split(index, split)
    present = {index.scene_name[scene]: scene for scene in dict.fromkeys(index.sample_scene[samples].tolist())}
    if missing := [name for name in scenes if name not in present]:
        some = f"{len(present)}, such as {', '.join(list(present)[:8])}"
        raise UserError(f"{split!r} of {index.root} has no scene {missing[0]!r}; it has {some}.")
    if not 0 < fraction <= 1:
        raise UserError(f"--fraction must lie above 0 and be at most 1, got {fraction:g}.")
    named = [present[name] for name in scenes or present]
    count = max(1, round(fraction * len(named)))
    chosen = [named[i * len(named) // count] for i in range(count)]
    return samples[np.isin(index.sample_scene[samples], chosen)]


def usable(index: NuscenesIndex, rows: slice = slice(None)) -> Bool[np.ndarray, "boxes"]:
    """Which annotations may train: of a detection class, with at least one LiDAR or radar point."""
    points = index.annotation_lidar_points[rows] + index.annotation_radar_points[rows]
    return (index.annotation_class[rows] >= 0) & (points > 0)


def sample_boxes(index: NuscenesIndex, sample: int, bev_from_global: Float[Tensor, "4 4"]) -> Boxes:
    """Usable annotations of a sample, seen from a BEV frame; float64, velocities over the ground.

    Args:
        bev_from_global: Rigid; may be near enough to upright only (LIDAR_TOP), see `transform_boxes`.
    """
    rows = index.annotations(sample)
    kept = usable(index, rows)

    def column(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values[rows][kept])  # a copy: the mapped columns are read-only

    heading = rotation_from_quaternion(column(index.annotation_rotation))[..., 0]
    boxes = Boxes(
        center=column(index.annotation_center),
        size=column(index.annotation_size),
        yaw=torch.atan2(heading[:, 1], heading[:, 0]),
        velocity=column(index.annotation_velocity),
        label=column(index.annotation_class),
    )
    return transform_boxes(bev_from_global, boxes)


def within_reach(boxes: Boxes, reach: float) -> Boxes:
    """Boxes whose centre lies strictly inside the square of +-`reach` metres, in float32."""
    kept = boxes.select((boxes.center[:, :2].abs() < reach).all(dim=1))
    return kept._each(lambda column: column.float() if column.is_floating_point() else column)


def classes_present(index: NuscenesIndex, positions: Int[np.ndarray, "samples"]) -> Bool[np.ndarray, "samples klass"]:
    """Whether each sample has a usable annotation of each class."""
    sample = np.repeat(np.arange(len(index)), np.diff(index.annotation_offset))
    rows = usable(index)
    present = np.zeros((len(index), len(CLASSES)), dtype=bool)
    present[sample[rows], index.annotation_class[rows]] = True
    return present[positions]


def class_balanced(
    index: NuscenesIndex, positions: Int[np.ndarray, "samples"], seed: int
) -> Int[np.ndarray, "resampled"]:
    """Positions resampled so that each class has its tenth: drawn once, not every epoch.

    With T the number of (sample, class present in it) pairs, T/10 samples are drawn with replacement from those of each
    class, class after class; the official train split grows from 28,130 to about 123,600. A class that occurs nowhere
    contributes nothing; without any usable annotation the positions come back as they are.
    """
    present = classes_present(index, positions)
    share = int(present.sum() / len(CLASSES))
    if share == 0:
        return positions
    generator = np.random.default_rng(seed)
    return np.concatenate([generator.choice(positions[having], share) for having in present.T if having.any()])
