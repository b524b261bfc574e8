"""Which scenes make up a split.

The official lists are facts of the data set, taken from nuscenes-devkit 1.2.0 (Apache-2.0,
`nuscenes/utils/splits.py`) and stored as ranges of scene numbers in `official_splits.json`.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Int

from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import UserError
from dualdistill.files import read_json


@cache
def official_splits() -> dict[str, tuple[str, ...]]:
    """Scene names of the official splits: train, val, test, mini_*, train_detect and train_track."""
    ranges = json.loads(files("dualdistill.data").joinpath("official_splits.json").read_text())
    return {split: tuple(_scene_names(text)) for split, text in ranges.items()}


def _scene_names(ranges: str) -> list[str]:
    """`"1-2 41"` is scene-0001, scene-0002, scene-0041."""
    names: list[str] = []
    for text in ranges.split():
        first, _, last = text.partition("-")
        names += [f"scene-{number:04d}" for number in range(int(first), int(last or first) + 1)]
    return names


def custom_splits(index: NuscenesIndex) -> dict[str, tuple[str, ...]]:
    """Splits of a root's own `splits.json`, {split: [scene names]}, in the version folder.

    Raises:
        UserError: if the file is not of that form.
    """
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
    if split in splits:
        wanted = set(splits[split])
        scenes = [position for position, name in enumerate(present) if name in wanted]
        if scenes:
            return np.flatnonzero(np.isin(index.sample_scene, scenes))
    here = [name for name, names in splits.items() if not set(names).isdisjoint(present)]
    shown = ", ".join(present[:8]) + (f", … ({len(present)} in all)" if len(present) > 8 else "")
    problem = "has no scene in" if split in splits else "is not a split of"
    raise UserError(
        f"{split!r} {problem} {index.root} ({index.version}). "
        f"Splits with scenes there: {', '.join([*here, 'all'])}. Scenes there: {shown}"
    )


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
        some = ", ".join(list(present)[:8])
        raise UserError(
            f"{split!r} of {index.root} has no scene {missing[0]!r}; it has {len(present)}, such as {some}."
        )
    if not 0 < fraction <= 1:
        raise UserError(f"--fraction must lie above 0 and be at most 1, got {fraction:g}.")
    named = [present[name] for name in scenes or present]
    count = max(1, round(fraction * len(named)))
    chosen = [named[i * len(named) // count] for i in range(count)]
    return samples[np.isin(index.sample_scene[samples], chosen)]
