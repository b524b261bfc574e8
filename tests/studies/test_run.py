"""A study is resumable: what is recorded is skipped, what failed is done again, and the page comes from the record."""

import dataclasses
import json

import pytest

from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.experiment.plain import override
from dualdistill.recipes.catalogue import find
from studies import results
from studies.design import ROWS, STUDIES
from studies.page import variant_table, write_page
from studies.run import Workplace, remaining, run_study


def place(folder, study="smoke") -> Workplace:
    return Workplace(
        study=STUDIES[study],
        data=folder / "world",
        out=folder,
        results=folder / f"{study}.json",
        weights=folder / "weights",
    )


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES.keys())
def test_every_job_has_a_key_of_its_own_and_every_control_a_row(study):
    keys = [job.key for job in study.jobs()]
    assert len(keys) == len(set(keys))
    rows = {row.key for row in study.rows}
    if study.name != "tuning":  # which compares weights with each other
        assert {row.control for row in study.rows if row.control} <= rows


def test_a_run_that_stands_in_two_studies_of_one_record_is_one_run():
    of_main = {job.key: STUDIES["main"].settings(job) for job in STUDIES["main"].jobs()}
    for job in STUDIES["ablations"].jobs():
        assert STUDIES["ablations"].settings(job) == of_main.get(job.key, STUDIES["ablations"].settings(job))


def test_every_recipe_and_setting_of_a_study_exists():
    for study in STUDIES.values():
        for job in study.jobs():
            override(find(job.row.recipe).build(), study.settings(job))
        for network in study.networks.values():
            override(find(network.recipe).build(), list(network.sets))


def test_the_bounded_row_is_the_recipe_of_its_name():
    row = next(row for row in ROWS if row.key == "dualdistill-centerpoint-plus")
    assert override(find(row.recipe).build(), list(row.sets)) == find(f"synthetic/{row.key}").build()


def test_a_row_needs_its_teacher_and_labeldistill_its_label_encoder_too():
    rows = {row.key: row.networks for row in STUDIES["main"].rows}
    assert rows["student"] == ()
    assert rows["head-mvp"] == ("teacher-mvp",)
    assert rows["labeldistill-centerpoint"] == ("teacher-centerpoint", "label-encoder-centerpoint")
    needed = {name for names in rows.values() for name in names}
    assert needed == STUDIES["main"].networks.keys()


def test_seeds_come_one_after_the_other_and_the_largest_budget_last():
    order = [(job.budget, job.seed) for job in STUDIES["main"].jobs()]
    steps = list(dict.fromkeys(order))
    assert steps[:4] == [(1200, 1), (6000, 1), (1200, 2), (6000, 2)]
    assert steps[-1] == (18000, 3)


def test_entries_are_merged_one_by_one_each_on_a_line_of_its_own(tmp_path):
    path = tmp_path / "main.json"
    results.add(path, "runs", "b/1/1", {"mean_ap": 0.123456789, "tp_errors": {"vel_err": float("nan")}})
    results.add(path, "runs", "a/1/1", {"mean_ap": 0.1})
    found = results.read(path)["runs"]
    assert found == {"a/1/1": {"mean_ap": 0.1}, "b/1/1": {"mean_ap": 0.123457, "tp_errors": {"vel_err": None}}}
    assert len([line for line in path.read_text().splitlines() if "mean_ap" in line]) == 2


def test_a_recorded_run_is_not_done_again_and_one_of_other_settings_is_refused(tmp_path):
    here = place(tmp_path)
    first, *others = here.study.jobs()
    results.add(here.results, "runs", first.key, {"sets": here.study.settings(first)})
    assert remaining(here) == others
    changed = dataclasses.replace(here, study=dataclasses.replace(here.study, batch=8))
    with pytest.raises(SystemExit, match="Delete the entry"):
        remaining(changed)


@pytest.mark.slow
def test_the_smoke_study_runs_and_its_page_needs_the_record_alone(tmp_path):
    here = place(tmp_path)
    here = dataclasses.replace(here, study=dataclasses.replace(here.study, scenes=1))
    job = next(here.study.jobs())
    assert run_study(here, limit_minutes=0) == []
    assert json.loads(here.results.read_text())["networks"]
    assert run_study(here, workers=2, only=[job.row.key]) == []
    assert {job.row.key for job in remaining(here)} == {row.key for row in here.study.rows} - {job.row.key}
    study = dataclasses.replace(here.study, name="main")  # its template
    page = write_page(study, results.read(here.results), tmp_path / "docs")
    assert "no distillation | 2 |" in page.read_text()
    index = NuscenesIndex.open(here.data)
    assert len(set(index.sample_scene[samples_of_split(index, here.study.split)])) == 1


def test_settings_are_compared_by_their_own_runs():
    def runs(gain):
        rows = {"student": 0.1, "head-centerpoint": 0.12, "dualdistill-centerpoint": 0.12 + gain}
        return {
            f"{row}/1200/{seed}": {"mean_ap": score + seed * 0.001} for row, score in rows.items() for seed in (1, 2)
        }

    lines = variant_table({"main": runs(0.01), "batch": runs(0.03)}).splitlines()
    assert lines[-2].endswith("| +2.0 | +3.0 | +1.0 |")
    assert lines[-1].endswith("| +2.0 | +5.0 | +3.0 |")
