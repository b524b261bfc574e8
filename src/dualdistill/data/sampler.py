"""The order in which samples are seen: a function of seed and epoch, and of nothing else."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

Item = tuple[int, int]
"""Epoch and position in the data set: together they fix a sample, augmentation included."""


class EpochSampler(Sampler[Item]):
    """The (epoch, item) pairs one process loads in one epoch, batch after batch.

    Every global batch is the same whatever the number of processes: each takes its share of it. An epoch has
    `length // batch` steps; the rest of its permutation is left out. Training that stopped after
    `n` steps goes on with `start_step=n`, with the samples it would have seen.
    """

    def __init__(
        self,
        length: int,
        *,
        batch: int,
        seed: int,
        start_step: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
    ):
        """Sampler of the epoch that holds step `start_step`.

        Args:
            length: Samples of the data set.
            batch: Global batch size: of all processes together.
            seed: Of the shuffling.
            start_step: Steps already taken since the start of training.
            shuffle: Whether the order changes with the epoch; otherwise items come in order.
            rank: Number of this process.
            world: Number of processes.

        Raises:
            ValueError: if the data set is smaller than a batch, or the processes cannot share a batch evenly.
        """
        if batch < 1 or length < batch:
            raise ValueError(f"{length} samples do not fill a batch of {batch}")
        if batch % world or not 0 <= rank < world:
            raise ValueError(f"process {rank} of {world} cannot take an even share of a batch of {batch}")
        self.length, self.batch, self.seed, self.shuffle = length, batch, seed, shuffle
        self.rank, self.world = rank, world
        self.epoch, self.first_step = divmod(start_step, self.steps_per_epoch)

    @property
    def steps_per_epoch(self) -> int:
        return self.length // self.batch

    def set_epoch(self, epoch: int) -> None:
        """Turn to an epoch; one that was not begun yet starts at its first step."""
        if epoch != self.epoch:
            self.epoch, self.first_step = epoch, 0

    def __len__(self) -> int:
        """Samples this process has still to load in this epoch."""
        return (self.steps_per_epoch - self.first_step) * self.batch // self.world

    def __iter__(self) -> Iterator[Item]:
        order = np.arange(self.length)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        share = self.batch // self.world
        for step in range(self.first_step, self.steps_per_epoch):
            start = step * self.batch + self.rank * share
            for item in order[start : start + share]:
                yield self.epoch, int(item)
