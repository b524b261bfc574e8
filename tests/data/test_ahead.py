"""Tables cut by another process are those cut here, and its failures cost time only."""

import subprocess
import sys
from pathlib import Path

import pytest

from dualdistill.data import ahead
from dualdistill.data.ahead import cut_ahead
from dualdistill.data.table_columns import read_table_columns
from dualdistill.data.tables import Annotation, EgoPose
from dualdistill.errors import UserError
from tests.data.test_table_columns import assert_same, index_files, write_lines
from tests.data.tiny_root import TinyRoot

WANTED = {"ego_pose": EgoPose, "sample_annotation": Annotation}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have another process cut whatever size a table has."""
    monkeypatch.setattr(ahead, "SMALLEST", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)


def assert_read_as_here(folder: Path, scratch: Path) -> None:
    with cut_ahead(folder, WANTED, scratch) as process:
        for name, record in WANTED.items():
            assert_same(process.read(name), read_table_columns(folder, name, record))


def test_columns_are_those_cut_here(own_root: TinyRoot, tmp_path: Path, always: None) -> None:
    folder, scratch = own_root.path / own_root.version, tmp_path / "scratch"
    scratch.mkdir()
    for name in WANTED:
        write_lines(folder, name, own_root.table(name))
    assert_read_as_here(folder, scratch)
    assert (scratch / "sample_annotation.size").stat().st_size == 24 * len(own_root.table("sample_annotation"))


def test_a_table_for_the_parser_is_parsed_here(own_root: TinyRoot, tmp_path: Path, always: None) -> None:
    folder = own_root.path / own_root.version  # whose tables are one line each
    write_lines(folder, "sample_annotation", own_root.table("sample_annotation"))
    assert_read_as_here(folder, tmp_path)


def test_an_index_is_the_same_whoever_cut(
    own_root: TinyRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always: None
) -> None:
    for name in WANTED:
        write_lines(own_root.path / own_root.version, name, own_root.table(name))
    by_two = index_files(own_root.path, tmp_path / "two", monkeypatch)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert index_files(own_root.path, tmp_path / "one", monkeypatch) == by_two
    assert not [path for path in (tmp_path / "two").rglob("*") if path.is_file() and path.suffix != ".arrow"]


def test_what_is_wrong_with_a_table_is_said_as_ever(own_root: TinyRoot, always: None) -> None:
    path = own_root.path / own_root.version / "ego_pose.json"
    write_lines(path.parent, "ego_pose", own_root.table("ego_pose"))
    path.write_bytes(path.read_bytes()[:-100])
    with cut_ahead(path.parent, WANTED, path.parent) as process, pytest.raises(UserError, match="cut off"):
        process.read("ego_pose")


def test_a_process_that_dies_is_not_missed(
    own_root: TinyRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always: None
) -> None:
    monkeypatch.setattr(ahead, "_COMMAND", "raise SystemExit(1)")
    assert_read_as_here(own_root.path / own_root.version, tmp_path)


def test_small_tables_start_no_process(own_root: TinyRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    assert_read_as_here(own_root.path / own_root.version, tmp_path)


def test_the_other_process_starts_without_torch() -> None:
    script = "import sys; from dualdistill.data import ahead; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
