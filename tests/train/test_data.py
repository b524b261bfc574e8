"""Which samples a training sees, and who loads them."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from dualdistill.data.collate import pack
from dualdistill.train.data import MAX_WORKERS, StepSampler, default_workers, training_loader
from tests.train.toy import Samples

SIZES = st.integers(1, 23)


@given(length=SIZES, batch_size=st.integers(1, 7), cut=st.integers(0, 12), seed=st.integers(0, 99))
def test_a_resumed_training_sees_what_an_unbroken_one_would(length, batch_size, cut, seed):
    whole = list(StepSampler(length, batch_size, first=0, last=12, seed=seed))
    rest = list(StepSampler(length, batch_size, first=cut, last=12, seed=seed))
    assert whole[cut:] == rest


@given(length=SIZES, batch_size=st.integers(1, 7), seed=st.integers(0, 99))
def test_every_epoch_is_a_permutation(length, batch_size, seed):
    batches = StepSampler(length, batch_size, first=0, last=-(-3 * length // batch_size), seed=seed)
    pairs = [pair for batch in batches for pair in batch][: 3 * length]
    for epoch in range(3):
        assert sorted(pairs[epoch * length : (epoch + 1) * length]) == [(epoch, i) for i in range(length)]


@given(length=SIZES, each=st.integers(1, 5), world=st.integers(1, 4), seed=st.integers(0, 99))
def test_processes_share_every_batch_of_one_process_equally(length, each, world, seed):
    def batches(rank, world):
        return list(StepSampler(length, each * 4 * 3, first=0, last=6, seed=seed, rank=rank, world=world))

    for whole, *shares in zip(batches(0, 1), *(batches(rank, world) for rank in range(world)), strict=True):
        assert sorted(whole) == sorted(pair for share in shares for pair in share)
        assert len({len(share) for share in shares}) == 1


def test_a_batch_that_processes_cannot_share_equally_is_refused():
    with pytest.raises(ValueError, match="2 processes cannot share a batch of 3"):
        StepSampler(10, 3, first=0, last=1, seed=0, world=2)


def test_another_seed_is_another_order():
    orders = [list(StepSampler(50, 50, first=0, last=1, seed=seed)) for seed in (0, 1)]
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    ("cores", "processes", "workers"), [(1, 1, 0), (2, 1, 1), (64, 1, MAX_WORKERS), (64, 8, 7), (8, 8, 0), (4, 8, 0)]
)
def test_processes_share_the_usable_cores_for_loading(monkeypatch, cores, processes, workers):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert default_workers(processes) == workers


class Signalled(Dataset):
    """Its loader processes are sent every stop signal before each item."""

    def __getitem__(self, pair):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        return pair


def test_loader_processes_outlive_stop_signals():
    loader = training_loader(Signalled(), list, StepSampler(4, 2, first=0, last=3, seed=0), workers=1)
    assert len(list(loader)) == 3


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_batch_of_a_loader_process_is_one_open_file():
    loader = training_loader(Samples(), pack, StepSampler(10, 8, first=0, last=24, seed=0), workers=1)
    batches = iter(loader)
    held = [next(batches) for _ in range(4)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    held += [next(batches) for _ in range(16)]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 20  # 16, and those read ahead
    meta, want = held[3].to("cpu").meta, [Samples()[pair].meta[0] for pair in loader.batch_sampler.batch(3)]
    assert [each.token for each in meta] == [each.token for each in want]
    assert all(torch.equal(a.global_from_bev, b.global_from_bev) for a, b in zip(meta, want, strict=True))


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="needs /proc")
def test_the_limit_of_open_files_is_raised_for_loader_processes():
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("the hard limit leaves no room")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        training_loader(Signalled(), list, StepSampler(4, 2, first=0, last=3, seed=0), workers=0)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 1024
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
