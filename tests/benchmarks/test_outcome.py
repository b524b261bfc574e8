"""Results of benchmarks: records to JSON and back, on a page, targets met and missed, failures."""

import io
import json

import pytest
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks.catalogue import BENCHMARKS, Benchmark, Target, lazy
from benchmarks.outcome import merged, page, read_records, records, verdict, write_records
from dualdistill.errors import UserError
from dualdistill.report.timing import Row
from tests.conftest import REPOSITORY

SLOW = Row(setting="sum of 10", name="loop", milliseconds=10.0, spread=0.1, ratio=1.0, peak_mib=3.0)
FAST = Row(setting="sum of 10", name="vector", milliseconds=2.0, ratio=5.0, difference=1e-7)


def plain(*rows, quick=False, name="sum"):
    return records(name, rows, quick=quick, machine="a machine")


def checked(*targets, rows=(SLOW, FAST), quick=False):
    benchmark = Benchmark(summary="sums", run=lambda quick: [], goal="fast", targets=targets)
    return verdict(benchmark, plain(*rows, quick=quick))


def test_a_file_of_another_kind_is_refused(tmp_path):
    write_records(tmp_path / "rows.json", plain(SLOW, FAST))
    assert read_records(tmp_path / "rows.json") == plain(SLOW, FAST)
    assert read_records(tmp_path / "absent.json") == []
    (tmp_path / "else.json").write_text('[{"a": 1}]')
    with pytest.raises(UserError, match="not written by"):
        read_records(tmp_path / "else.json")


def test_a_target_is_met_if_the_best_row_it_selects_keeps_every_bound():
    assert checked(Target(variant="vector", ratio=5.0)) == "met"
    assert checked(Target(variant="vector", ratio=5.1)) == "missed"
    assert checked(Target(variant="vector", ratio=5.0, milliseconds=1.0)) == "missed"
    assert checked(Target(variant="vector", setting="of 10", difference=1e-6)) == "met"
    assert checked(Target(variant="loop", ratio=1.0), Target(variant="vector", ratio=9.0)) == "missed"


def test_targets_that_cannot_be_checked_are_not_met():
    assert checked() == "no target"
    assert "not measured" in checked(Target(variant="kernel", ratio=2.0))
    assert "quick" in checked(Target(variant="vector", ratio=1.0), quick=True)
    assert checked(Target(variant="vector", peak_mib=9.0)) == "missed"  # unknown memory is not small


def test_a_share_of_memory_is_of_the_first_row_of_the_same_setting():
    rows = tuple(
        Row(setting=setting, name=name, milliseconds=1.0, peak_mib=mib)
        for setting, name, mib in (("a", "loop", 100.0), ("a", "vector", 20.0), ("b", "loop", 9.0), ("b", "new", 8.0))
    )
    assert checked(Target(variant="vector", memory_share=1 / 5), rows=rows) == "met"
    assert checked(Target(variant="vector", memory_share=1 / 6), rows=rows) == "missed"
    assert checked(Target(variant="new", memory_share=1 / 5), rows=rows) == "missed"
    assert checked(Target(variant="vector", memory_share=1 / 5)) == "missed"  # the reference's is not known


def test_a_result_of_another_shape_never_keeps_a_bound_on_differences():
    wrong = Row(setting="sum", name="vector", milliseconds=1.0, ratio=10.0, difference=float("inf"))
    assert checked(Target(variant="vector", difference=1.0), rows=(wrong,)) == "missed"


def test_the_page_has_a_table_a_setting_whether_targets_were_met_and_the_notes(tmp_path):
    large = Row(setting="sum of 1000", name="loop", milliseconds=99.0)
    targets = (Target(variant="v", ratio=4),)
    benchmarks = {
        "sum": Benchmark(summary="loops and vectors", run=lambda quick: [], goal="4x", targets=targets),
        "absent": Benchmark(summary="not measured", run=lambda quick: []),
    }
    (tmp_path / "sum.md").write_text("Most of it is addition.\n")
    text = page(benchmarks, plain(SLOW, FAST, large), tmp_path)
    assert text.index("**Met.**") < text.index("Most of it is addition.")
    assert text.index("**sum of 10**") < text.index("**sum of 1000**")
    assert "Target: 4x. **Met.**" in text
    assert "## absent" not in text


def test_new_records_replace_the_old_of_their_benchmark_alone():
    old, others = plain(SLOW), plain(FAST, name="other")
    new = plain(FAST)
    assert merged([*old, *others], new, ["sum", "other"]) == [*new, *others]


def test_names_are_checked_before_anything_is_measured(capsys):
    assert program.main(["boxes", "pilars"]) == 2
    assert "no benchmark 'pilars'" in capsys.readouterr().out


def test_without_a_name_the_benchmarks_are_listed(capsys):
    assert program.main([]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in BENCHMARKS)


def test_a_benchmark_that_fails_is_reported_and_loses_no_other(monkeypatch, tmp_path):
    monkeypatch.setitem(BENCHMARKS, "broken", Benchmark(summary="fails", run=lazy("absent")))
    monkeypatch.setitem(BENCHMARKS, "sum", Benchmark(summary="sums", run=lazy("absent")))
    measured = program.measured
    monkeypatch.setattr(program, "measured", lambda *a: plain(SLOW, FAST) if a[0] == "sum" else measured(*a))
    console = Console(file=io.StringIO(), width=120)
    files = {"json_file": tmp_path / "rows.json", "page_file": tmp_path / "page.md"}
    assert program.run_benchmarks(console, ["broken", "sum"], **files) == ["broken"]
    printed = console.file.getvalue()
    assert "failed: broken" in printed
    assert "KeyError: 'broken'" in printed  # of the other process, whose catalogue has no such entry
    assert [row["name"] for row in read_records(tmp_path / "rows.json")] == ["loop", "vector"]
    assert "## sum" in (tmp_path / "page.md").read_text()


def test_the_page_in_docs_is_made_of_the_records_beside_it():
    docs = REPOSITORY / "docs"
    stored = read_records(docs / "performance.json")
    assert page(BENCHMARKS, stored, docs / "performance") == (docs / "performance.md").read_text()
    json.dumps(stored, allow_nan=False)
