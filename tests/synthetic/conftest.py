"""One tiny world, written once for all tests here."""

import json
from pathlib import Path
from typing import Any

import pytest

from dualdistill.synthetic import TINY, make_synthetic

Tables = dict[str, dict[str, dict[str, Any]]]


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic(tmp_path_factory.mktemp("synthetic") / "tiny", TINY, workers=1)


@pytest.fixture(scope="session")
def tables(tiny_root: Path) -> Tables:
    """Rows by token, by table name."""
    paths = sorted((tiny_root / "v1.0-trainval").glob("*.json"))
    return {path.stem: {row["token"]: row for row in json.loads(path.read_text())} for path in paths}
