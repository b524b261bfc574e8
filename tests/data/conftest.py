"""Tiny nuScenes roots for the tests of this folder."""

from pathlib import Path

import pytest

from dualdistill.data.index import NuscenesIndex
from tests.data.tiny_root import TinyRoot, write_root


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> TinyRoot:
    """Two scenes of six and four key frames with sweeps between; nobody may change it."""
    return write_root(tmp_path_factory.mktemp("tiny") / "root", {"scene-0061": 6, "scene-0103": 4})


@pytest.fixture
def own_root(tmp_path: Path) -> TinyRoot:
    """One scene of three key frames, free to be broken."""
    return write_root(tmp_path / "root", {"scene-0061": 3}, sweeps=False)


@pytest.fixture(scope="session")
def tiny_index(tiny_root: TinyRoot) -> NuscenesIndex:
    return NuscenesIndex.open(tiny_root.path)


@pytest.fixture(scope="session")
def nuscenes_index(nuscenes_root: Path) -> NuscenesIndex:
    return NuscenesIndex.open(nuscenes_root)
