"""Which samples a training sees, and in which order: a pure function of (seed, step)."""

import os
import resource
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from dualdistill.train.launch import outlive_stop_signals

MAX_WORKERS = 16
"""Loader processes of one training process, unless the user asks for more."""


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) pairs for all the steps of a training that are still to come.

    Each epoch is a permutation drawn from (seed, epoch); epochs follow each other without a gap, so a batch may hold
    the end of one and the beginning of the next. Several processes share each batch: process `rank` of `world` takes
    every `world`-th sample of it, so that what a step sees does not depend on their number.
    """

    def __init__(
        self, length: int, batch_size: int, *, first: int, last: int, seed: int, rank: int = 0, world: int = 1
    ):
        """Args: `batch_size` counts the samples of all processes; `first` and `last` number the batches (`last`
        excluded)."""
        if batch_size % world:
            raise ValueError(f"{world} processes cannot share a batch of {batch_size}")
        self.length, self.batch_size = length, batch_size
        self.first, self.last = first, last
        self.seed, self.rank, self.world = seed, rank, world
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return map(self.batch, range(self.first, self.last))

    def batch(self, number: int) -> list[tuple[int, int]]:
        """This process's share of a batch."""
        start = number * self.batch_size
        return [self._pair(place) for place in range(start + self.rank, start + self.batch_size, self.world)]

    def _pair(self, place: int) -> tuple[int, int]:
        epoch, index = divmod(place, self.length)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
        return epoch, int(self._order[index])


def training_loader(
    dataset: Dataset[Any],
    collate: Callable[[list[Any]], Any],
    order: StepSampler,
    *,
    workers: int,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """The batches of `order`, each the same however many workers load it."""
    allow_open_files()
    return DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=outlive_stop_signals,
        pin_memory=pin_memory,
    )


def default_workers(processes: int = 1) -> int:
    """Loader processes for each of the training processes of one machine: its share of the usable cores but one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(MAX_WORKERS, cores // processes - 1))


def allow_open_files() -> None:
    """Raise this process's limit of open files as far as it may: loader processes pass each tensor as a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
