"""The ray caster is an extra: only rendering a world needs it."""

import sys

import pytest

from dualdistill.errors import UserError
from dualdistill.synthetic import TINY, make_synthetic


@pytest.fixture
def _without_embree(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("embreex", "embreex.mesh_construction", "embreex.rtcore_scene"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("_without_embree")
def test_rendering_without_embree_names_the_extra_and_writes_nothing(tmp_path):
    with pytest.raises(UserError, match=r"pip install 'dualdistill\[synthetic\]'"):
        make_synthetic(tmp_path / "world", TINY)
    assert not (tmp_path / "world").exists()


@pytest.mark.usefixtures("_without_embree")
def test_a_world_that_exists_is_used_without_embree(tiny_root):
    assert make_synthetic(tiny_root, TINY) == tiny_root
