"""The page and its tables come from result files alone, and say what these say."""

import dataclasses
import io
import json
import shutil

import pytest
from rich.console import Console

from dualdistill.errors import UserError
from dualdistill.science.page import BEGIN, END, print_tables, write_page, write_readme_table
from dualdistill.science.record import read_result, read_results, what_differs, write_result
from dualdistill.science.study import Row, StudyTable
from dualdistill.science.summary import lines_of
from tests.science.made_up import TINY_STUDY, made_up_result, write_made_up

SCORES = {
    "student": [0.20, 0.22, 0.21],
    "distillbev-centerpoint": [0.19, 0.24, 0.20],
    "dualdistill-centerpoint": [0.25, 0.26, 0.26],
}


@pytest.fixture
def folder(tmp_path):
    write_made_up(tmp_path / "docs" / "results" / "made-up", SCORES)
    return tmp_path / "docs" / "results" / "made-up"


def test_a_result_is_read_as_it_was_written(tmp_path):
    result = made_up_result("student", 3, 0.25)
    write_result(tmp_path / "one.json", result)
    back = read_result(tmp_path / "one.json")
    assert back.identity == result.identity
    assert dataclasses.replace(back, scores=result.scores) == result
    assert back.scores.mean_ap == result.scores.mean_ap
    assert back.scores.bands[1].mean_ap is None


def test_differences_pair_seeds_and_intervals_are_students_t(folder):
    lines = {line.row.name: line for line in lines_of(TINY_STUDY.tables[0], read_results(folder))}
    gain = lines["DualDistill"].difference("mean_ap")
    assert gain.by_seed == pytest.approx({0: 0.05, 1: 0.04, 2: 0.05})
    half = 4.302653 * 0.00577350 / 3**0.5  # t of two degrees of freedom, standard deviation of the three
    assert gain.seeds == pytest.approx((0.0466667 - half, 0.0466667 + half), abs=1e-6)
    assert gain.sign == 1
    assert lines["no distillation"].difference("mean_ap") is None
    assert lines["DistillBEV"].difference("mean_ap").sign == 0


def test_draws_of_scenes_pair_up_too(folder):
    """All made-up runs saw the same draws, so their noise cancels in the difference."""
    lines = {line.row.name: line for line in lines_of(TINY_STUDY.tables[0], read_results(folder))}
    low, high = lines["DualDistill"].difference("mean_ap").scenes
    assert (low, high) == pytest.approx((0.0466667, 0.0466667), abs=5e-6)


def test_the_published_difference_is_to_the_published_reference(folder):
    line = lines_of(TINY_STUDY.tables[0], read_results(folder))[2]
    assert line.published_difference("mean_ap") == pytest.approx((40.5 - 36.4) / 100)
    assert line.verdict("mean_ap") == "agrees"


def test_a_loss_where_a_gain_was_published_is_reported_as_such(tmp_path):
    write_made_up(tmp_path, {"student": [0.2, 0.2, 0.2], "dualdistill-centerpoint": [0.1, 0.11, 0.1]})
    page = write_page(TINY_STUDY, tmp_path, tmp_path / "page.md").read_text()
    assert "DualDistill over no distillation, mAP: −9.7" in page
    assert "the opposite sign of the published one" in page


def test_the_page_is_made_of_the_files_alone_and_the_same_files_make_the_same_bytes(folder, tmp_path):
    (folder / "discussion.md").write_text("Written by hand.\n")
    first = write_page(TINY_STUDY, folder, folder.parents[1] / "results.md")
    text = first.read_text()
    assert "DualDistill" in text
    assert "Written by hand." in text
    assert "results/made-up/gain_per_class.png" in text
    assert "Not run yet" not in text
    pictures = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    assert set(pictures) == {"gain_per_class.png", "gain_per_distance.png", "depth_error.png", "similarity.png"}
    other = tmp_path / "elsewhere" / "docs" / "results" / "made-up"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("*.png"))
    assert write_page(TINY_STUDY, other, other.parents[1] / "results.md").read_text() == text
    assert {path.name: path.read_bytes() for path in other.glob("*.png")} == pictures


def test_what_was_not_run_is_said(folder):
    (folder / "dualdistill-centerpoint-seed1.json").unlink()
    page = write_page(TINY_STUDY, folder, folder.parents[1] / "results.md").read_text()
    assert "**Not run yet**: dualdistill-centerpoint seed 1." in page


def test_the_readme_keeps_all_but_what_stands_between_its_markers(folder, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Before\n{BEGIN}\nold\n{END}\nafter\n".format(TINY_STUDY.name, TINY_STUDY.name))
    write_readme_table(TINY_STUDY, folder, readme)
    write_readme_table(TINY_STUDY, folder, readme)
    text = readme.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert text.count("DualDistill") == 1
    readme.write_text("no markers")
    with pytest.raises(UserError, match="has no lines"):
        write_readme_table(TINY_STUDY, folder, readme)


def test_printed_tables_are_json_too(folder):
    rows = print_tables(Console(file=io.StringIO(), width=150), TINY_STUDY, folder)
    assert [row["name"] for row in rows] == ["no distillation", "DistillBEV", "DualDistill"]
    assert rows[2]["gain_mean_ap"] == pytest.approx(0.0466667, abs=1e-6)
    json.dumps(rows)


def test_results_of_different_worlds_are_never_compared(folder):
    result = made_up_result("student", 9, 0.2)
    result.identity["world"] = result.identity["world"] | {"seed": 5}
    write_result(folder / result.file_name, result)
    with pytest.raises(UserError, match="2 different worlds"):
        write_page(TINY_STUDY, folder, folder.parents[1] / "results.md")


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="science run"):
        write_page(TINY_STUDY, tmp_path, tmp_path / "page.md")


def test_a_setting_that_did_not_exist_yet_counts_with_its_default():
    now = made_up_result("student", 0, 0.2).identity
    before = json.loads(json.dumps(now))
    del before["experiment"]["data"]["num_sweeps"]
    assert what_differs(before, now)  # its default is 10, this recipe says 5
    before = json.loads(json.dumps(now))
    del before["experiment"]["data"]["class_balanced"]
    assert what_differs(before, now) == []
    before["experiment"]["data"]["num_sweeps"] = 3
    assert what_differs(before, now) == ["experiment.data.num_sweeps: 3 there, 5 now"]


def test_a_study_refuses_two_rows_of_one_name_and_a_reference_that_is_not_there():
    rows = TINY_STUDY.tables[0].rows
    with pytest.raises(ValueError, match="none of its rows"):
        StudyTable(key="x", title="x", rows=rows[1:])
    twin = Row(recipe="synthetic/student", name="longer", sets=("training.steps=9",), key="student")
    with pytest.raises(ValueError, match="two rows"):
        dataclasses.replace(TINY_STUDY, tables=(StudyTable(key="x", title="x", rows=(*rows, twin)),))
    with pytest.raises(ValueError, match="key of its own"):
        Row(recipe="synthetic/student", name="longer", sets=("training.steps=9",))
