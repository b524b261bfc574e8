"""Class-balanced resampling of the training set, CBGS (docs/methods/centerpoint.md#class-balanced-resampling)."""

import numpy as np
from jaxtyping import Bool, Int

from dualdistill.data.annotations import usable
from dualdistill.data.index import NuscenesIndex
from dualdistill.structures import CLASSES


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
