"""Shared weights travel with the results."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import load_file

from dualdistill.commands.train import start_training
from dualdistill.errors import UserError
from dualdistill.models.checkpoints import fingerprint, read_facts
from dualdistill.science.jobs import Job, all_jobs, needed_run
from dualdistill.science.run import keep_shared, what_is_left
from dualdistill.science.shared import adopt, keep, kept_path
from dualdistill.science.study import Row, Study, StudyTable
from dualdistill.train.loaded_detector import weights_of
from dualdistill.train.trained_weights import find_label_encoder, find_teacher
from tests.commands.conftest import STEPS, TINY_STUDENT, TINY_TEACHER
from tests.science.test_run import STUDY, record

LABELS = Study(
    name="labels",
    summary="one row that learns from a teacher and a label encoder",
    world=STUDY.world,
    tables=(
        StudyTable(
            key="one",
            title="One",
            rows=(Row(recipe="synthetic/labeldistill-centerpoint", name="tiny", key="tiny", sets=TINY_TEACHER),),
            reference="tiny",
        ),
    ),
    seeds=(4,),
    pretraining=Row(recipe="synthetic/student", name="pretraining", key="pretraining"),
    sets={
        "teacher": (*TINY_TEACHER, *STEPS),
        "label_encoder": (*TINY_TEACHER, *STEPS),
        "student": (*TINY_STUDENT, *STEPS),
    },
)


def jobs_at(world: Path, machine: Path, results: Path) -> dict[str, Job]:
    jobs = all_jobs(LABELS, data=world, out=machine / "runs", results=results, seeds=LABELS.seeds)
    return {job.row: job for job in jobs}


@pytest.fixture(scope="module")
def kept(world, tmp_path_factory):
    """Results of a study whose teacher, label encoder and first student were trained on one machine."""
    machine = tmp_path_factory.mktemp("machine")
    results = machine / "results"
    jobs = jobs_at(world, machine, results)
    quiet = Console(file=io.StringIO())
    shared = [job for job in jobs.values() if job.row != "tiny"]
    assert [job.role for job in shared] == ["teacher", "label_encoder", "student"]
    for job in shared:
        teacher = (
            needed_run(job.recipe.replace("label-encoder", "teacher"), Path(jobs["teacher-centerpoint"].folder))
            if (job.role == "label_encoder")
            else None
        )
        start_training(
            quiet,
            job.recipe,
            data=world,
            out=Path(job.folder),
            overrides=job.overrides,
            seed=0,
            workers=0,
            teacher=teacher,
        )
        record(job)
    keep_shared(quiet, LABELS, data=world, out=machine / "runs", results=results)
    return machine, results


def test_a_kept_file_holds_the_weights_and_no_path_of_the_machine(world, kept):
    machine, results = kept
    for job in jobs_at(world, machine, results).values():
        if job.row == "tiny":
            assert not kept_path(job).exists()
            continue
        trained = load_file(weights_of(needed_run(job.recipe, Path(job.folder)), "last"))
        copied = load_file(kept_path(job))
        assert trained.keys() == copied.keys()
        assert all(trained[name].equal(copied[name]) for name in trained)
        assert str(machine.parent) not in json.dumps(read_facts(kept_path(job)))


def test_elsewhere_only_the_row_itself_is_left_and_finds_its_teachers(world, kept, tmp_path):
    _, results = kept
    jobs = jobs_at(world, tmp_path, results)
    assert len(what_is_left(LABELS, list(jobs.values()))) == 4
    assert [job.row for job, _ in adopt(list(jobs.values()))] == [
        "teacher-centerpoint",
        "pretraining",
        "label-encoder-centerpoint",
    ]
    assert adopt(list(jobs.values())) == []
    assert [job.row for job in what_is_left(LABELS, list(jobs.values()))] == ["tiny"]
    experiment, _ = LABELS.experiment(jobs["tiny"].recipe, TINY_TEACHER)
    teacher = find_teacher(experiment, None, Path(jobs["teacher-centerpoint"].folder))
    encoder = find_label_encoder(experiment, None, Path(jobs["label-encoder-centerpoint"].folder), teacher)
    assert teacher.identity["sha256"] == fingerprint(kept_path(jobs["teacher-centerpoint"]))
    assert teacher.identity["score"]["mAP"] == pytest.approx(0.2)
    assert encoder.facts["teacher"]["sha256"] == teacher.identity["sha256"]


def test_a_neighbouring_study_takes_what_it_trains_by_the_same_settings_and_keeps_only_its_own(world, kept, tmp_path):
    _, results = kept
    beside = results.parent / "neighbour"
    longer = Row(recipe="synthetic/student", name="longer", key="pretraining", sets=("training.steps=7",))
    other = dataclasses.replace(LABELS, name="neighbour", pretraining=longer)
    jobs = {job.row: job for job in all_jobs(other, data=world, out=tmp_path, results=beside, seeds=other.seeds)}
    taken = {job.row: weights for job, weights in adopt(list(jobs.values()))}
    assert taken == {
        row: results / "shared" / f"{row}-seed0.safetensors"
        for row in ("teacher-centerpoint", "label-encoder-centerpoint")
    }
    assert [job.row for job in what_is_left(other, list(jobs.values()))] == ["pretraining", "tiny"]
    assert keep(list(jobs.values())) == []


def test_where_nothing_is_trained_there_is_nothing_to_keep(world, tmp_path):
    with pytest.raises(UserError, match="science run"):
        keep_shared(Console(file=io.StringIO()), LABELS, data=world, out=tmp_path, results=tmp_path / "results")
