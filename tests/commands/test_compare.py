"""`compare`: run folders as they lie on disk."""

import json

import pytest

from dualdistill.commands.compare import compare_runs
from dualdistill.commands.options.training import Compare
from dualdistill.errors import UserError
from dualdistill.experiment.plain import to_plain
from dualdistill.recipes.catalogue import find

EXPERIMENT = to_plain(find("synthetic/student").build())
DISTILLED = to_plain(find("synthetic/dualdistill-centerpoint").build())


def write_run(out, recipe, seed, mean_ap, *, split="val", finished=True, experiment=EXPERIMENT):
    folder = out / recipe / f"2026-01-01_00-00-00-seed{seed}"
    results = folder / "evaluation" / "step_000004"
    results.mkdir(parents=True)
    (folder / "checkpoints" / "step_000004").mkdir(parents=True)
    (folder / "checkpoints" / "last").write_text("step_000004\n")
    teacher = None
    if experiment["distiller"]:
        score = {"mAP": 0.6, "NDS": 0.7}
        teacher = {"path": "/gone", "sha256": "", "recipe": "nuscenes/teacher-centerpoint", "step": 9, "score": score}
    record = {
        "recipe": recipe,
        "overrides": [],
        "seed": seed,
        "data": {"root": "/world", "version": "v1.0-trainval", "split": "train"},
        "teacher": teacher,
        "label_encoder": None,
        "teacher_cache": None,
        "log": [],
        "experiment": experiment,
    }
    (folder / "experiment.json").write_text(json.dumps(record))
    if finished:
        (folder / "finished.json").write_text("{}")
    if mean_ap is not None:
        metrics = {"mean_ap": mean_ap, "nd_score": mean_ap, "tp_errors": {"trans_err": float("nan")}}
        (results / "metrics.json").write_text(json.dumps(metrics))
        where = {"root": "/world", "version": "v1.0-trainval", "split": split}
        (results / "evaluated.json").write_text(json.dumps(where))
    return folder


@pytest.fixture
def out(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, "nuscenes/student", seed, 0.30 + seed / 100)
        write_run(tmp_path, "nuscenes/dualdistill-centerpoint", seed, 0.34 + seed / 50, experiment=DISTILLED)
    return tmp_path


def test_a_folder_of_runs_becomes_one_table_in_every_form(out, console):
    files = {"markdown": out / "t.md", "latex": out / "t.tex", "html": out / "t.html"}
    student, taught = compare_runs(console, Compare([out], **files))
    assert student["mean_ap"] == pytest.approx(0.305)
    assert taught["gain_mean_ap"] == pytest.approx(0.045)
    assert (taught["teacher"], taught["teacher_mean_ap"]) == ("nuscenes/teacher-centerpoint", 0.6)
    assert taught["published_mean_ap"] == pytest.approx(0.405)
    assert "+4.5 ± 0.7" in files["markdown"].read_text()
    assert r"+4.5 $\pm$ 0.7" in files["latex"].read_text()
    assert "+4.5 ± 0.7" in files["html"].read_text()
    json.dumps([student, taught], allow_nan=False)


def test_a_run_named_twice_counts_once(out, console):
    rows = compare_runs(console, Compare([out, *sorted((out / "nuscenes" / "student").iterdir())]))
    assert [row["seeds"] for row in rows] == [2, 2]


def test_a_run_without_evaluation_is_told_what_to_do(out, console):
    folder = write_run(out, "nuscenes/student", 2, None)
    with pytest.raises(UserError, match=f"dualdistill evaluate {folder}"):
        compare_runs(console, Compare([out]))


def test_an_unfinished_run_is_left_out_below_a_folder_and_refused_by_name(out, console):
    folder = write_run(out, "nuscenes/student", 2, None, finished=False)
    assert [row["seeds"] for row in compare_runs(console, Compare([out]))] == [2, 2]
    assert "not finished" in console.file.getvalue()
    with pytest.raises(UserError, match=f"dualdistill resume {folder}"):
        compare_runs(console, Compare([folder]))


def test_runs_evaluated_on_another_split_are_kept_apart(out, console):
    write_run(out, "nuscenes/student", 2, 0.9, split="train")
    rows = compare_runs(console, Compare([out]))
    assert sorted(row["data"].rsplit(" ", 1)[-1] for row in rows) == ["train", "val", "val"]
    assert all(row["mean_ap"] < 0.5 for row in rows if row["data"].endswith("val"))


def test_a_folder_without_runs_is_refused(tmp_path, console):
    with pytest.raises(UserError, match="no run folder"):
        compare_runs(console, Compare([tmp_path]))
