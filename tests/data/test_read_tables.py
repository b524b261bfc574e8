"""Tables are read as any JSON parser reads them, however they are laid out and wherever a piece of them ends."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualdistill.data import read_tables
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.read_tables import Table, key_of, read_records
from dualdistill.data.tables import (
    TABLES,
    Category,
    EgoPose,
    Instance,
    Record,
    SampleAnnotation,
    SampleData,
    TableWriter,
)
from dualdistill.errors import UserError
from tests.data.tiny_root import TinyRoot

LARGE = ("sample", "ego_pose", "sample_data", "instance", "sample_annotation")


def read(folder: Path, name: str) -> list[Record]:
    return [record for part in read_records(folder, TABLES[name]) for record in part]


def decoded_at_once(path: Path) -> list[Record] | None:
    """None for a table that is not as nuScenes v1.0 has it."""
    try:
        records = msgspec.json.decode(path.read_bytes(), type=list[TABLES[path.stem]])  # type: ignore[misc]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    good = all(record.token.strip(".") and record.token.isprintable() for record in records)
    return records if good and not any({"/", "\\"} & set(record.token) for record in records) else None


def index_files(root: Path, cache: Path, patch: pytest.MonkeyPatch) -> dict[str, bytes]:
    patch.setenv("DUALDISTILL_CACHE", str(cache))
    folder = NuscenesIndex.open(root).folder
    return {path.stem: path.read_bytes() for path in folder.glob("*.arrow")}


@pytest.mark.parametrize("piece", [30, 1500, 4001])
@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("name", LARGE)
def test_layout_and_pieces_do_not_matter(tiny_root: TinyRoot, name, indent, piece, tmp_path, monkeypatch):
    (tmp_path / f"{name}.json").write_text(json.dumps(tiny_root.table(name), indent=indent))
    monkeypatch.setattr(read_tables, "PIECE", piece)
    assert read(tmp_path, name) == decoded_at_once(tmp_path / f"{name}.json")
    assert len(list(read_records(tmp_path, TABLES[name]))) > 1


def test_an_index_does_not_depend_on_the_layout_of_tables(own_root: TinyRoot, tmp_path, monkeypatch):
    compact = index_files(own_root.path, tmp_path / "compact", monkeypatch)
    for name in LARGE:
        text = json.dumps(own_root.table(name), indent=0)
        (own_root.path / own_root.version / f"{name}.json").write_text(text)
    monkeypatch.setattr(read_tables, "PIECE", 1000)
    assert index_files(own_root.path, tmp_path / "lines", monkeypatch) == compact


def test_what_looks_like_the_end_of_a_record_splits_none(own_root: TinyRoot, tmp_path, monkeypatch):
    records = own_root.table("sample_data")
    for record in records:
        record |= {"filename": 'a "},{" }, {.jpg', "more": [{"a": 1}, {"b": [{"c": 2}, {"d": "},{"}]}]}
    (tmp_path / "sample_data.json").write_text(json.dumps(records))
    for piece in range(40, 700, 13):
        monkeypatch.setattr(read_tables, "PIECE", piece)
        assert read(tmp_path, "sample_data") == decoded_at_once(tmp_path / "sample_data.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("samples/", r"\u0073amples/", 1),
        lambda text: text.replace("samples/", "sämples/", 1),
        lambda text: text.replace('"height": 90', '"height": null', 3),
        lambda text: text.replace('"height": 90', '"height": -0', 3),
        lambda text: text.replace('"height": 90', '"height":\n90', 3),
        lambda text: text.replace('"height": 90', '"height": 17, "height": 90'),
        lambda text: text.replace('"height": 90, ', "").replace('"width"', '"wide"'),
        lambda text: text.replace(", ", ",\r\n"),
        lambda text: text + " \n\n",
        lambda text: "\n" + text,
        lambda text: "[]",
        lambda text: "[\n]",
    ],
)
def test_whatever_else_json_allows_is_read(own_root: TinyRoot, change: Callable, tmp_path, monkeypatch):
    text = json.dumps(own_root.table("sample_data"))
    assert change(text) != text
    (tmp_path / "sample_data.json").write_bytes(change(text).encode())
    monkeypatch.setattr(read_tables, "PIECE", 700)
    records = read(tmp_path, "sample_data")
    assert records == decoded_at_once(tmp_path / "sample_data.json")
    columns = Table(tmp_path, SampleData, "filename height")
    assert columns["filename"].to_pylist() == [record.filename for record in records]
    assert columns["height"].tolist() == [record.height or 0 for record in records]


@pytest.mark.parametrize("number", ["-0.0", "0", "1e-7", "1E+5", "-12", "1.7976931348623157e308", "5e-324"])
def test_numbers_are_those_of_python_to_the_last_bit(own_root: TinyRoot, number, tmp_path):
    text = json.dumps(own_root.table("ego_pose"))
    (tmp_path / "ego_pose.json").write_text(text.replace("[600.0", f"[{number}"))
    columns = Table(tmp_path, EgoPose, "translation")
    expected = np.array([record["translation"] for record in json.loads((tmp_path / "ego_pose.json").read_text())])
    assert columns["translation"].tobytes() == expected.astype(np.float64).tobytes()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "+1", ".5", "-", "", "null", '"1"', "[1]"])
def test_what_is_no_finite_number_is_refused(own_root: TinyRoot, number, tmp_path):
    text = json.dumps(own_root.table("ego_pose"))
    (tmp_path / "ego_pose.json").write_text(text.replace("[600.0", f"[{number}"))
    with pytest.raises(UserError, match=r"ego_pose\.json: .*(record|not JSON)"):
        read(tmp_path, "ego_pose")


def test_of_several_attributes_the_first_counts(tiny_root: TinyRoot, tmp_path):
    records = tiny_root.table("sample_annotation")
    for number, record in enumerate(records):
        record["attribute_tokens"] = [f"attribute {i}" for i in range(number % 3)]
    (tmp_path / "sample_annotation.json").write_text(json.dumps(records))
    columns = Table(tmp_path, SampleAnnotation, "attribute_tokens token_text")
    assert columns["token_text"].to_pylist() == [record["token"] for record in records]
    assert columns["attribute_tokens"].tolist() == [0, *2 * [key_of("attribute 0")]] * (len(records) // 3)


@pytest.mark.parametrize("wanted", ["samples/", "sweeps/", "nothing begins like this"])
def test_records_that_are_not_wanted_are_left_out(tiny_root: TinyRoot, wanted):
    folder = tiny_root.path / tiny_root.version
    columns = Table(folder, SampleData, "filename", lambda record: record.filename.startswith(wanted))
    filenames = [record["filename"] for record in tiny_root.table("sample_data")]
    assert columns["filename"].to_pylist() == [name for name in filenames if name.startswith(wanted)]


def test_errors_count_records_through_the_whole_table(tiny_root: TinyRoot, tmp_path, monkeypatch):
    monkeypatch.setattr(read_tables, "PIECE", 2000)
    records = tiny_root.table("ego_pose")
    records[57]["translation"] = [0.0, 0.0]
    (tmp_path / "ego_pose.json").write_text(json.dumps(records))
    with pytest.raises(UserError, match=r"\$\[57\]\.translation"):
        read(tmp_path, "ego_pose")
    records[57]["translation"] = [0.0, 0.0, float("nan")]
    (tmp_path / "ego_pose.json").write_text(json.dumps(records))
    with pytest.raises(UserError, match=rf"record 57 \(token {records[57]['token']!r}\) has translation"):
        read(tmp_path, "ego_pose")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_table_with_any_byte_lost_or_changed_is_read_or_refused_as_at_once(data, own_root, tmp_path):
    name = data.draw(st.sampled_from(LARGE))
    indent = data.draw(st.sampled_from([None, 0]))
    text = bytearray(json.dumps(own_root.table(name)[:3], indent=indent).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    match data.draw(st.sampled_from(["lost", "changed", "cut"])):
        case "lost":
            del text[place]
        case "changed":
            text[place] = data.draw(st.sampled_from(b'\n\t"{}[],:\\ x\xff-/.'))
        case "cut":
            del text[place:]
    (tmp_path / f"{name}.json").write_bytes(text)
    expected = decoded_at_once(tmp_path / f"{name}.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_tables, "PIECE", data.draw(st.integers(20, 1200)))
        try:
            assert read(tmp_path, name) == expected
        except UserError:
            assert expected is None


@given(
    st.lists(st.text("abc01", min_size=1, max_size=9), unique=True, max_size=20),
    st.lists(st.integers(0, 30)),
)
def test_links_lead_where_a_dictionary_leads(tokens, wanted):
    known = [tokens[i] for i in wanted if i < len(tokens)]
    with tempfile.TemporaryDirectory() as folder:
        with TableWriter(Path(folder)) as tables:
            for token in tokens:
                tables.write(Category(token=token, name="a name"))
            for number, token in enumerate([*known, ""]):
                tables.write(Instance(token=str(number), category_token=token))
        categories = Table(Path(folder), Category, "name")
        rows = categories.rows(Table(Path(folder), Instance, "category_token"), "category_token", optional=True)
    assert rows.tolist() == [*map(tokens.index, known), -1]
