"""Fixtures shared by all tests."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from dualdistill.synthetic import TINY, make_synthetic

REPOSITORY = Path(__file__).parents[1]

# A busy machine is not a failing law.
settings.register_profile("dualdistill", deadline=None)
settings.load_profile("dualdistill")


@pytest.fixture(scope="session")
def nuscenes_root() -> Path:
    """A root of real nuScenes key frames; tests that need it are skipped where there is none."""
    root = os.environ.get("DUALDISTILL_NUSCENES")
    if root is None:
        pytest.skip("no real nuScenes frames: set DUALDISTILL_NUSCENES to a nuScenes root")
    return Path(root)


@pytest.fixture(scope="session", autouse=True)
def _stop_signals() -> None:
    """A shell starts what runs in its background with SIGINT ignored; tests send it."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Indices of the roots that tests make do not pile up in the user's cache."""
    os.environ["DUALDISTILL_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic world that renders in seconds."""
    return make_synthetic(tmp_path_factory.mktemp("world") / "tiny", TINY, workers=1)
