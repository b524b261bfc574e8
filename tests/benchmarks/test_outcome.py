"""Rows of benchmarks: to JSON and back, on a page, and judged."""

import io
import json
import math

import pytest
from rich.console import Console

from benchmarks import run as bench_run
from benchmarks.catalogue import BENCHMARKS, Benchmark, Target, lazy
from benchmarks.measure import Row
from benchmarks.outcome import page, plain_row, read_rows, replaced, row_of, tables, verdict, write_rows
from dualdistill.errors import UserError

SLOW = Row(benchmark="sum of 10", name="loop", milliseconds=10.0, spread=0.1, ratio=1.0, peak_mib=3.0)
FAST = Row(benchmark="sum of 10", name="vector", milliseconds=2.0, ratio=5.0, difference=1e-7)


def plain(*rows, quick=False, name="sum"):
    return [plain_row(name, row, quick=quick, machine="a machine") for row in rows]


def judged(*promises, rows=(SLOW, FAST), quick=False):
    benchmark = Benchmark(summary="sums", run=lambda quick: [], target="fast", promises=promises)
    return verdict(benchmark, plain(*rows, quick=quick))


def test_rows_survive_the_file_and_a_result_of_another_form_too(tmp_path):
    other = Row(benchmark="sum of 10", name="wrong", milliseconds=1.0, difference=math.inf)
    write_rows(tmp_path / "rows.json", plain(SLOW, FAST, other))
    assert [row_of(row) for row in read_rows(tmp_path / "rows.json")] == [SLOW, FAST, other]
    json.loads((tmp_path / "rows.json").read_text(), parse_constant=pytest.fail)  # no Infinity, which is no JSON
    assert read_rows(tmp_path / "absent.json") == []
    (tmp_path / "else.json").write_text('[{"a": 1}]')
    with pytest.raises(UserError, match="not written by"):
        read_rows(tmp_path / "else.json")


def test_a_target_is_met_if_the_best_row_it_names_keeps_every_bound():
    assert judged(Target(formulation="vector", ratio=5.0)) == "met"
    assert judged(Target(formulation="vector", ratio=5.1)) == "missed"
    assert judged(Target(formulation="vector", ratio=5.0, milliseconds=1.0)) == "missed"
    assert judged(Target(formulation="vector", benchmark="of 10", difference=1e-6)) == "met"
    assert judged(Target(formulation="loop", ratio=1.0), Target(formulation="vector", ratio=9.0)) == "missed"


def test_what_cannot_be_judged_is_not():
    assert judged() == "not checked by machine"
    assert "not measured" in judged(Target(formulation="kernel", ratio=2.0))
    assert "quick" in judged(Target(formulation="vector", ratio=1.0), quick=True)
    assert verdict(Benchmark(summary="sums", run=lambda quick: []), plain(SLOW)) == "no target"
    assert judged(Target(formulation="vector", peak_mib=9.0)) == "missed"  # memory nobody could measure is not small


def test_a_share_of_memory_is_of_the_first_row_of_the_same_setting():
    rows = tuple(
        Row(benchmark=benchmark, name=name, milliseconds=1.0, peak_mib=mib)
        for benchmark, name, mib in (("a", "loop", 100.0), ("a", "vector", 20.0), ("b", "loop", 9.0), ("b", "new", 8.0))
    )
    assert judged(Target(formulation="vector", memory_share=1 / 5), rows=rows) == "met"
    assert judged(Target(formulation="vector", memory_share=1 / 6), rows=rows) == "missed"
    assert judged(Target(formulation="new", memory_share=1 / 5), rows=rows) == "missed"
    assert judged(Target(formulation="vector", memory_share=1 / 5)) == "missed"  # the reference's is not known


def test_a_result_of_another_form_never_keeps_a_bound_on_differences():
    wrong = Row(benchmark="sum", name="vector", milliseconds=1.0, ratio=10.0, difference=math.inf)
    assert judged(Target(formulation="vector", difference=1.0), rows=(wrong,)) == "missed"


def test_the_page_has_a_table_a_setting_and_says_whether_targets_were_met_and_what_was_noted(tmp_path):
    large = Row(benchmark="sum of 1000", name="loop", milliseconds=99.0)
    benchmarks = {
        "sum": Benchmark(
            summary="loops and vectors",
            run=lambda quick: [],
            target="4x",
            promises=(Target(formulation="v", ratio=4),),
        ),
        "absent": Benchmark(summary="not measured", run=lambda quick: []),
    }
    (tmp_path / "sum.md").write_text("Most of it is addition.\n")
    text = page(benchmarks, plain(SLOW, FAST, large), tmp_path)
    assert text.index("**Met.**") < text.index("Most of it is addition.")
    assert text.index("**sum of 10**") < text.index("**sum of 1000**")
    assert "Target: 4x. **Met.**" in text
    assert "## absent" not in text
    assert len(tables(plain(SLOW, FAST, large))) == 2


def test_new_rows_replace_the_old_of_their_benchmark_alone():
    old, others = plain(SLOW), plain(FAST, name="other")
    new = plain(FAST)
    assert replaced([*old, *others], new, ["sum", "other"]) == [*new, *others]


def test_names_are_checked_before_anything_is_measured():
    with pytest.raises(UserError, match="no benchmark 'pilars'"):
        bench_run.run_benchmarks(Console(file=io.StringIO()), ["pilars"])


def test_a_benchmark_that_fails_is_told_and_loses_no_other(monkeypatch, tmp_path):
    monkeypatch.setitem(BENCHMARKS, "broken", Benchmark(summary="nobody's", run=lazy("absent")))
    monkeypatch.setitem(BENCHMARKS, "sum", Benchmark(summary="sums", run=lazy("absent")))
    measured = bench_run._measured
    monkeypatch.setattr(
        bench_run, "_measured", lambda c, name, quick: plain(SLOW, FAST) if name == "sum" else measured(c, name, quick)
    )
    console = Console(file=io.StringIO(), width=120)
    with pytest.raises(SystemExit) as stop:
        bench_run.run_benchmarks(
            console, ["broken", "sum"], json_file=tmp_path / "rows.json", page_file=tmp_path / "page.md"
        )
    assert stop.value.code == 1
    said = console.file.getvalue()
    assert "failed: broken" in said
    assert "KeyError: 'broken'" in said  # the child's own words: its catalogue has no such entry
    assert [row["name"] for row in read_rows(tmp_path / "rows.json")] == ["loop", "vector"]
    assert "## sum" in (tmp_path / "page.md").read_text()


def test_resuming_measures_only_what_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setitem(BENCHMARKS, "sum", Benchmark(summary="sums", run=lazy("absent")))
    monkeypatch.setattr(bench_run, "_measured", lambda *_: plain(SLOW))
    quiet = Console(file=io.StringIO())
    path = tmp_path / "rows.json"
    bench_run.run_benchmarks(quiet, ["sum"], json_file=path)
    monkeypatch.setattr(bench_run, "_measured", lambda *_: plain(FAST))
    assert bench_run.run_benchmarks(quiet, ["sum"], json_file=path, resume=True) == plain(SLOW)
    assert bench_run.run_benchmarks(quiet, ["sum"], json_file=path) == plain(FAST)
