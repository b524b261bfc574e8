"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# A busy machine is not a failing law.
settings.register_profile("dualdistill", deadline=None)
settings.load_profile("dualdistill")

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def nuscenes_root() -> Path:
    """A root of real nuScenes key frames; tests that need it are skipped where there is none."""
    default = REPOSITORY.parent / "shared" / "data" / "nuscenes-scene-0523"
    root = Path(os.environ.get("DUALDISTILL_NUSCENES", default))
    if not root.is_dir():
        pytest.skip("no real nuScenes frames: set DUALDISTILL_NUSCENES to a nuScenes root")
    return root


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
