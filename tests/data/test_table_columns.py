"""Columns cut out of a table are those a parser finds, and what cannot be cut is parsed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualdistill.data import line_layout, table_columns
from dualdistill.data.index import FILES, NuscenesIndex
from dualdistill.data.line_layout import Choice, UnsupportedLayout, cut_records
from dualdistill.data.table_columns import read_table_columns
from dualdistill.data.tables import Annotation, EgoPose, Instance, Sample, SampleData
from dualdistill.data.tokens import Positions, as_texts
from dualdistill.errors import UserError
from tests.data.tiny_root import TinyRoot

TABLES = {
    "sample": Sample,
    "ego_pose": EgoPose,
    "sample_data": SampleData,
    "instance": Instance,
    "sample_annotation": Annotation,
}


def never_cut(path, record, choice=None):
    raise UnsupportedLayout


def read(folder: Path, name: str) -> dict[str, np.ndarray]:
    return read_table_columns(folder, name, TABLES[name])


def parsed(folder: Path, name: str) -> dict[str, np.ndarray]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_columns, "cut_records", never_cut)
        return read_table_columns(folder, name, TABLES[name])


def outcome(way: Callable, folder: Path, name: str) -> dict[str, np.ndarray] | str:
    try:
        return way(folder, name)
    except UserError as complaint:
        return str(complaint)


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert values.dtype.kind == theirs[name].dtype.kind
        assert values.shape == theirs[name].shape
        # Bit for bit: a zero has its sign. Texts may differ in the zeros behind the longest.
        equal = values == theirs[name] if values.dtype.kind == "S" else values.tobytes() == theirs[name].tobytes()
        assert np.all(equal), name


def index_files(root: Path, cache: Path, patch: pytest.MonkeyPatch) -> dict[str, bytes]:
    patch.setenv("DUALDISTILL_CACHE", str(cache))
    folder = NuscenesIndex.open(root).folder
    return {name: (folder / f"{name}.arrow").read_bytes() for name in FILES}


def write_lines(folder: Path, name: str, records: list[dict]) -> str:
    """The table as nuScenes publishes it."""
    text = json.dumps(records, indent=0)
    (folder / f"{name}.json").write_text(text)
    return text


def test_one_field_a_line_or_all_in_one_line_make_the_same_index(own_root, tmp_path, monkeypatch):
    compact = index_files(own_root.path, tmp_path / "compact", monkeypatch)
    for name in TABLES:
        write_lines(own_root.path / own_root.version, name, own_root.table(name))
        assert list(cut_records(own_root.path / own_root.version / f"{name}.json", TABLES[name]))
    assert index_files(own_root.path, tmp_path / "lines", monkeypatch) == compact


@pytest.mark.parametrize("root", ["world", pytest.param("nuscenes_root", marks=pytest.mark.nuscenes)])
def test_an_index_of_cut_tables_is_that_of_parsed_ones(root, request, tmp_path, monkeypatch):
    path = request.getfixturevalue(root)
    (folder,) = path.glob("v1.0-*")
    for name, record in TABLES.items():
        assert list(cut_records(folder / f"{name}.json", record))
    cut = index_files(path, tmp_path / "cut", monkeypatch)
    monkeypatch.setattr(table_columns, "cut_records", never_cut)
    assert index_files(path, tmp_path / "parsed", monkeypatch) == cut


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("piece", [1500, 4001])
def test_where_a_table_is_split_for_cutting_does_not_matter(tiny_root: TinyRoot, name, piece, tmp_path, monkeypatch):
    write_lines(tmp_path, name, tiny_root.table(name))
    monkeypatch.setattr(line_layout, "PIECE", piece)
    parts = list(cut_records(tmp_path / f"{name}.json", TABLES[name]))
    assert len(parts) > 1 or name == "instance"
    assert_same(read_table_columns(tmp_path, name, TABLES[name]), parsed(tmp_path, name))


def test_records_with_no_one_or_several_attributes_stay_in_their_order(tiny_root: TinyRoot, tmp_path):
    records = tiny_root.table("sample_annotation")
    for number, record in enumerate(records):
        record["attribute_tokens"] = [f"attribute {i}" for i in range(number % 3)]
    write_lines(tmp_path, "sample_annotation", records)
    assert list(cut_records(tmp_path / "sample_annotation.json", Annotation))
    columns = read_table_columns(tmp_path, "sample_annotation", Annotation)
    assert_same(columns, parsed(tmp_path, "sample_annotation"))
    assert columns["attribute_tokens"].tolist() == [b"", b"attribute 0", b"attribute 0"] * (len(records) // 3)


@pytest.mark.parametrize("layout", ["one field a line", "one line"])
@pytest.mark.parametrize("wanted", [b"samples/", b"sweeps/", b"nothing begins like this"])
def test_records_that_are_not_wanted_are_left_out(tiny_root: TinyRoot, layout, wanted, tmp_path, monkeypatch):
    records = tiny_root.table("sample_data")
    (tmp_path / "sample_data.json").write_text(json.dumps(records, indent=0 if layout == "one field a line" else None))
    monkeypatch.setattr(line_layout, "PIECE", 1500)
    everything = read_table_columns(tmp_path, "sample_data", SampleData)
    rows = np.flatnonzero(np.char.startswith(everything["filename"], wanted))
    choice = Choice("filename", lambda filenames: np.char.startswith(filenames, wanted))
    chosen = read_table_columns(tmp_path, "sample_data", SampleData, choice)
    assert chosen.pop("row").tolist() == rows.tolist()
    assert_same(chosen, {name: values[rows] for name, values in everything.items()})


def reordered(text: str) -> str:
    records = json.loads(text)
    records[5] = dict(reversed(records[5].items()))
    return json.dumps(records, indent=0)


def extended(text: str) -> str:
    records = json.loads(text)
    records[5]["more"] = {"a": [1, [2]]}
    return json.dumps(records, indent=0)


@pytest.mark.parametrize(
    "change",
    [
        reordered,
        extended,
        lambda text: text.replace("samples/", r"\u0073amples/", 1),
        lambda text: text.replace("samples/", "sämples/", 1),
        lambda text: text.replace('"height": 90', '"height": null', 3),
        lambda text: text.replace('"height": 90', '"height": -0', 3),
        lambda text: text.replace('"height": 90', '"height":\n90', 3),
        lambda text: text.replace('"height": 90', '"height" : 90'),
        lambda text: text.replace('"height": 90', '"height": 17, "height": 90'),
        lambda text: text.replace('"height": 90,\n', "").replace('"width"', '"wide"'),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\n  "),
        lambda text: text + " \n\n",
        lambda text: "\n" + text,
        lambda text: "[]",
        lambda text: "[\n]",
    ],
)
def test_whatever_else_json_allows_is_read_as_a_parser_reads_it(own_root: TinyRoot, change: Callable, tmp_path):
    text = write_lines(tmp_path, "sample_data", own_root.table("sample_data"))
    assert change(text) != text
    (tmp_path / "sample_data.json").write_bytes(change(text).encode())
    assert_same(read_table_columns(tmp_path, "sample_data", SampleData), parsed(tmp_path, "sample_data"))


@pytest.mark.parametrize("number", ["-0", "-0.0", "0", "1e-7", "1E+5", "-12", "1.7976931348623157e308", "5e-324"])
def test_numbers_are_those_of_a_parser_to_the_last_bit(own_root: TinyRoot, number, tmp_path):
    text = write_lines(tmp_path, "ego_pose", own_root.table("ego_pose"))
    (tmp_path / "ego_pose.json").write_text(text.replace("[\n600.0", f"[\n{number}"))
    assert number in (tmp_path / "ego_pose.json").read_text()
    assert_same(read_table_columns(tmp_path, "ego_pose", EgoPose), parsed(tmp_path, "ego_pose"))


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e400", "+1", ".5", "-", "", "null", '"1"', "[\n1\n]"]
)
def test_what_is_no_number_is_complained_of_as_ever(own_root: TinyRoot, number, tmp_path):
    text = write_lines(tmp_path, "ego_pose", own_root.table("ego_pose"))
    for known in ("[\n600.0", '"timestamp": 1600000000500000'):  # a wanted field, and one that is not
        before = known.rstrip("0123456789.")
        broken = text.replace(known, before + number)
        assert broken != text
        (tmp_path / "ego_pose.json").write_text(broken)
        if before.startswith('"') and number in ("1e400", "null", '"1"', "[\n1\n]"):
            continue  # nobody looks at what a field holds that is not wanted
        complaint = outcome(parsed, tmp_path, "ego_pose")
        assert isinstance(complaint, str)
        assert outcome(read, tmp_path, "ego_pose") == complaint


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_table_with_any_byte_lost_or_changed_is_read_or_refused_like_by_a_parser(data, own_root, tmp_path):
    name = data.draw(st.sampled_from(sorted(TABLES)))
    text = bytearray(write_lines(tmp_path, name, own_root.table(name)[:3]).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    match data.draw(st.sampled_from(["lost", "changed", "cut"])):
        case "lost":
            del text[place]
        case "changed":
            text[place] = data.draw(st.sampled_from(b'\n\t"{}[],:\\ x\xff-'))
        case "cut":
            del text[place:]
    (tmp_path / f"{name}.json").write_bytes(text)
    expected, ours = outcome(parsed, tmp_path, name), outcome(read, tmp_path, name)
    if isinstance(expected, str):
        assert ours == expected
    else:
        assert_same(ours, expected)


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40), unique=True, max_size=20),
    st.lists(st.integers(0, 30)),
)
def test_sorting_finds_what_a_dictionary_finds(tokens, wanted):
    positions = Positions(Path("folder"), "sample", as_texts(tokens))
    known = [tokens[i] for i in wanted if i < len(tokens)]
    found = positions.of(as_texts(known), as_texts(known), "a.b")
    assert found.tolist() == [tokens.index(token) for token in known]
    if "" not in tokens:
        assert positions.of(as_texts([""]), as_texts(["me"]), "a.b", may_be_empty=True).tolist() == [-1]
    with pytest.raises(UserError, match=r"a\.b of record 'me' is 'absent token'"):
        positions.of(as_texts(["absent token"]), as_texts(["me"]), "a.b", may_be_empty=True)


@given(st.permutations(range(12)), st.lists(st.integers(-20, 20), min_size=12, max_size=12))
def test_a_guess_changes_nothing_but_the_way(order: list[int], guess: list[int]):
    tokens = [f"token {i}" for i in range(12)]
    positions = Positions(Path("folder"), "sample", as_texts(tokens))
    wanted = as_texts(tokens[i] if i % 3 else "" for i in order)
    found = positions.of(wanted, wanted, "a.b", may_be_empty=True, guess=np.array(guess))
    assert found.tolist() == [i if i % 3 else -1 for i in order]


def test_tokens_that_follow_each_other_are_searched_once():
    positions = Positions(Path("folder"), "sample", as_texts("abc"))
    assert positions.of(as_texts("bbbbaaac"), as_texts("12345678"), "a.b").tolist() == [1, 1, 1, 1, 0, 0, 0, 2]


def test_tokens_that_share_their_64_bits_are_told_apart(monkeypatch):
    keys = Positions._keys
    monkeypatch.setattr(Positions, "_keys", lambda self, tokens: keys(self, tokens) * np.uint64(self.salt > 1))
    positions = Positions(Path("folder"), "sample", as_texts("abc"))
    assert positions.of(as_texts("cab"), as_texts("xyz"), "a.b").tolist() == [2, 0, 1]
