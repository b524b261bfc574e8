"""Rows from records of runs: who is averaged with whom, and who is set against whom."""

from dataclasses import replace

import pytest

from dualdistill.report.comparison import RunRecord, TeacherRecord, compare
from dualdistill.report.scores import mean_interval

STUDENT = {
    "data": {"points": False, "image_size": [64, 192], "virtual_points": None},
    "training": {"steps": 500, "log_every": 10},
    "teacher": None,
    "student": {"image": {"backbone": "resnet10t"}},
    "distiller": None,
}
DISTILLED = STUDENT | {
    "data": STUDENT["data"] | {"points": True},
    "teacher": {"pillar": 0.4},
    "distiller": {"method": "dualdistill", "crd": True},
}


def record(seed: int, mean_ap: float, experiment=STUDENT, **known) -> RunRecord:
    distilled = experiment["distiller"] is not None
    recipe = "synthetic/dualdistill-centerpoint" if distilled else "synthetic/student"
    facts = {
        "path": f"runs/{recipe}/seed{seed}",
        "recipe": recipe,
        "overrides": (),
        "role": "student",
        "data": "/world (v1.0-trainval): trained on train, evaluated on val",
        "metrics": {"mean_ap": mean_ap, "nd_score": mean_ap + 0.1, "tp_errors": {"trans_err": 1 - mean_ap}},
        "step": 500,
        "teacher": TeacherRecord(recipe="synthetic/teacher-centerpoint", step=500, mean_ap=0.6, nd_score=0.7)
        if distilled
        else None,
    }
    return RunRecord(seed=seed, experiment=experiment, **(facts | known))


ALONE = [record(seed, mean_ap) for seed, mean_ap in ((0, 0.20), (1, 0.24), (2, 0.22))]
TAUGHT = [record(seed, mean_ap, DISTILLED) for seed, mean_ap in ((0, 0.23), (1, 0.26), (2, 0.26))]


def rows(records):
    (found,) = compare(records)
    return {row.scores.name: row for row in found.rows}


def test_seeds_are_averaged_and_gains_are_those_of_pairs():
    found = rows([*ALONE, *TAUGHT])
    alone, taught = found["synthetic/student"], found["synthetic/dualdistill-centerpoint"]
    assert alone.scores.mean_ap == pytest.approx(0.22)
    assert alone.scores.spread["mean_ap"] == pytest.approx(0.02)
    assert alone.scores.gain_mean_ap is None
    assert taught.scores.seeds == 3
    assert taught.pairs == (0, 1, 2)
    assert taught.scores.gain_mean_ap == pytest.approx(0.03)
    assert taught.scores.spread["gain_mean_ap"] == pytest.approx(0.01)  # smaller than that of the scores: paired
    assert taught.scores.interval_mean_ap == pytest.approx(mean_interval([0.03, 0.02, 0.04]))
    assert (taught.scores.teacher_mean_ap, taught.scores.teacher_nd_score) == (0.6, 0.7)


def test_the_order_of_the_runs_does_not_matter():
    forward, backward = compare([*ALONE, *TAUGHT]), compare([*reversed(TAUGHT), *reversed(ALONE)])
    assert [part.table().to_json() for part in forward] == [part.table().to_json() for part in backward]


def test_only_seeds_that_both_have_make_a_gain():
    taught = rows([ALONE[1], *TAUGHT])["synthetic/dualdistill-centerpoint"]
    assert taught.pairs == (1,)
    assert taught.scores.gain_mean_ap == pytest.approx(0.02)
    assert taught.scores.interval_mean_ap is None
    assert taught.scores.seeds == 3


def test_a_student_of_other_settings_is_no_baseline_and_the_table_says_so():
    longer = STUDENT | {"training": {"steps": 1000, "log_every": 10}}
    (part,) = compare([record(0, 0.3, longer, overrides=("training.steps=1000",)), TAUGHT[0]])
    taught = part.rows[-1]
    assert taught.scores.gain_mean_ap is None
    assert any("no undistilled student" in note for note in part.notes)


def test_settings_without_effect_and_what_the_teacher_sees_do_not_part_the_two_students():
    chatty = STUDENT | {"training": {"steps": 500, "log_every": 1}}
    found = rows([record(0, 0.2, chatty), record(1, 0.24), TAUGHT[0], TAUGHT[1]])
    assert found["synthetic/student"].scores.seeds == 2
    assert found["synthetic/dualdistill-centerpoint"].pairs == (0, 1)


def test_runs_on_different_data_come_in_tables_of_their_own():
    elsewhere = [replace(run, data="/other (v1.0-mini): trained on mini_train, evaluated on mini_val") for run in ALONE]
    other, world = compare([*elsewhere, *TAUGHT])
    assert (other.data[:6], world.data[:6]) == ("/other", "/world")
    assert world.rows[0].scores.gain_mean_ap is None


def test_a_run_that_was_repeated_counts_once_the_later_one():
    again = replace(ALONE[0], path="again", metrics=ALONE[1].metrics, finished=5.0)
    (part,) = compare([again, ALONE[0]])
    (row,) = part.rows
    assert row.scores.mean_ap == pytest.approx(0.24)
    assert row.scores.seeds == 1
    assert any(ALONE[0].path in note and "left out" in note for note in part.notes)


def test_overrides_that_all_runs_share_are_told_once():
    shared = "training.steps=500"
    taught = replace(TAUGHT[0], overrides=(shared, "distiller.crd=true"))
    (part,) = compare([replace(ALONE[0], overrides=(shared,)), taught])
    names = [row.scores.name for row in part.rows]
    assert names == ["synthetic/student", "synthetic/dualdistill-centerpoint (distiller.crd=true)"]
    assert f"All runs have {shared}." in part.notes


def test_two_versions_of_one_recipe_are_told_apart_by_what_differs():
    without_crd = DISTILLED | {"distiller": {"method": "dualdistill", "crd": False}}
    found = rows([*TAUGHT, record(7, 0.1, without_crd)])
    assert {name.partition(" ")[2] for name in found} == {"[distiller.crd=true]", "[distiller.crd=false]"}


def test_runs_of_other_teachers_are_other_rows():
    weak = TeacherRecord(recipe="synthetic/teacher-centerpoint", step=4)
    names = list(rows([TAUGHT[0], replace(TAUGHT[1], teacher=weak)]))
    assert ["step 4" in name for name in names].count(True) == 1
    assert len(names) == 2


def test_teachers_stand_first_and_do_not_compete():
    teacher = replace(ALONE[0], recipe="synthetic/teacher-centerpoint", role="teacher", metrics=TAUGHT[2].metrics)
    (part,) = compare([*TAUGHT, *ALONE, teacher])
    assert [row.scores.is_teacher for row in part.rows] == [True, False, False]
    table = part.table()
    assert 0 not in table.best(next(column for column in table.columns if column.key == "mean_ap"))


def test_published_numbers_stand_beside_with_their_source():
    (part,) = compare([replace(run, published=(0.405, 0.514, "a paper")) for run in TAUGHT])
    assert "40.5" in part.table().to_markdown()
    assert any("a paper" in note for note in part.notes)
    assert part.rows[0].plain()["published_source"] == "a paper"


def test_the_plain_form_keeps_every_figure_and_every_run():
    plain = rows([*ALONE, *TAUGHT])["synthetic/dualdistill-centerpoint"].plain()
    assert plain["gain_mean_ap"] == pytest.approx(0.03)
    assert plain["standard_deviation"]["gain_mean_ap"] == pytest.approx(0.01)
    assert [run["seed"] for run in plain["runs"]] == plain["paired_seeds"] == [0, 1, 2]
    assert plain["teacher_mean_ap"] == 0.6
    assert plain["scale_err"] is None
