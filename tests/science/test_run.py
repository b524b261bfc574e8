"""`science run`: killed and run again, nothing is lost and nothing is done twice."""

import dataclasses
import io
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from rich.console import Console

from dualdistill.errors import UserError
from dualdistill.science import run as run_module
from dualdistill.science.jobs import Job, all_jobs
from dualdistill.science.record import OF_TEACHING, read_result, write_result
from dualdistill.science.run import log_of, run_study, start, what_is_left
from dualdistill.science.study import STUDIES, Row, Study, StudyTable, parse_seeds
from dualdistill.synthetic import TINY
from tests.commands.conftest import TINY_STUDENT, TINY_TEACHER
from tests.science.made_up import TINY_STUDY, made_up_result

KEY = "tiny-distilled"
LONG = ("training.steps=60", "training.batch_size=1", "training.save_every=1", "training.log_every=1")
STUDY = Study(
    name="tiny",
    summary="one distilled row",
    world=TINY,
    tables=(
        StudyTable(
            key="one",
            title="One",
            rows=(Row(recipe="synthetic/dualdistill-centerpoint", name="tiny", key=KEY, sets=TINY_TEACHER),),
            reference=KEY,
        ),
    ),
    seeds=(4,),
    sets={
        "teacher": (*TINY_TEACHER, "training.steps=2", "training.batch_size=1", "training.log_every=1"),
        "student": (*TINY_STUDENT, *LONG),
    },
    replicates=5,
)


def jobs_of(study: Study, folder: Path, data: Path | None = None) -> dict[str, Job]:
    data = data or folder / "data"
    jobs = all_jobs(study, data=data, out=folder / "runs", results=folder / "results", seeds=study.seeds)
    return {job.name: job for job in jobs}


def record(job: Job) -> None:
    """As if the job had been done, its weights lost since."""
    result = dataclasses.replace(made_up_result("student", job.seed, 0.2), row=job.row, identity=job.identity)
    write_result(Path(job.result), result)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_a_finished_one_is_left_alone(world, tmp_path):
    teacher, student = jobs_of(STUDY, tmp_path, world).values()
    assert (teacher.role, student.role) == ("teacher", "student")
    assert start(teacher, 1).wait(300) == 0, log_of(teacher).read_text()
    first = Path(teacher.result).read_bytes()

    process = start(student, 1)
    while not list(Path(student.folder).glob(f"{student.recipe}/*/checkpoints/last")):  # not the linked teacher.s
        assert process.poll() is None, log_of(student).read_text()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not student.trained
    assert not student.recorded

    def run() -> str:
        console = Console(file=io.StringIO(), width=200)
        folders = {"out": tmp_path / "runs", "results": tmp_path / "results"}
        run_study(console, STUDY, data=world, workers=2, **folders)
        return console.file.getvalue()

    said = run()
    assert "2 runs in all, 1 to do" in said
    assert "1 of 1 done" in said
    assert "going on at step" in log_of(student).read_text()
    assert Path(teacher.result).read_bytes() == first
    result = read_result(Path(student.result))
    steps = [json.loads(line)["step"] for line in (student.run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 61))
    assert result.steps == 60
    assert result.teacher.recipe == "synthetic/teacher-centerpoint"
    assert result.depth.cells > 0
    assert set(result.similarity["synthetic/teacher-centerpoint"]) <= {"objects", "all"}
    assert 0 <= result.similarity["synthetic/teacher-centerpoint"]["all"] <= 1
    assert [band.low for band in result.scores.bands] == [0.0, 15.0, 25.0]
    assert len(result.scores.replicates_nd_score) == 5
    assert result.cpu_seconds > 0
    assert len(list(Path(student.folder).glob("spent/*.json"))) == 2  # the killed process is counted, too
    files = {path: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    assert "0 to do" in run()
    assert {path: path.read_bytes() for path in (tmp_path / "results").iterdir()} == files


def test_what_is_recorded_is_skipped_and_lost_teachers_are_trained_again_only_if_needed(tmp_path):
    jobs = jobs_of(TINY_STUDY, tmp_path)
    assert [job.name for job in what_is_left(TINY_STUDY, list(jobs.values()))] == list(jobs)
    assert next(iter(jobs)) == "teacher-centerpoint seed 0"
    for job in jobs.values():
        record(job)
    assert what_is_left(TINY_STUDY, list(jobs.values())) == []
    Path(jobs["distillbev-centerpoint seed 1"].result).unlink()
    left = what_is_left(TINY_STUDY, list(jobs.values()))
    assert [job.name for job in left] == ["teacher-centerpoint seed 0", "distillbev-centerpoint seed 1"]


def test_the_first_seed_of_every_row_comes_before_the_second_of_any(tmp_path):
    students = [job for job in jobs_of(TINY_STUDY, tmp_path).values() if job.role == "student"]
    assert [job.seed for job in students] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_only_some_rows_wait_for_nobody_else(tmp_path):
    jobs = list(jobs_of(TINY_STUDY, tmp_path).values())
    left = what_is_left(TINY_STUDY, jobs, ["distillbev-centerpoint"])
    assert {job.row for job in left} == {"teacher-centerpoint", "distillbev-centerpoint"}
    assert what_is_left(TINY_STUDY, jobs, ["methods"]) == jobs
    with pytest.raises(UserError, match="no table or row of made-up"):
        what_is_left(TINY_STUDY, jobs, ["dualdistil"])


def test_a_result_of_other_settings_is_refused_with_what_differs(tmp_path):
    for job in jobs_of(TINY_STUDY, tmp_path).values():
        record(job)
    longer = dataclasses.replace(TINY_STUDY, sets={"student": ("training.steps=999",)})
    with pytest.raises(UserError, match=r"experiment.training.steps: \d+ there, 999 now"):
        what_is_left(longer, list(jobs_of(longer, tmp_path).values()))
    often = dataclasses.replace(TINY_STUDY, sets={"student": ("training.save_every=7",)})
    assert what_is_left(often, list(jobs_of(often, tmp_path).values())) == []


def test_how_a_teacher_is_remembered_matters_only_to_who_is_taught(tmp_path):
    jobs = jobs_of(TINY_STUDY, tmp_path)
    coarser = dataclasses.replace(TINY_STUDY, sets={"student": ("training.cache_precision=fp16",)})
    others = jobs_of(coarser, tmp_path)
    same = {name for name in jobs if jobs[name].folder == others[name].folder}
    assert same == {job.name for job in jobs.values() if job.teacher_cache is None}
    record(jobs["student seed 0"])
    assert others["student seed 0"].recorded


def test_a_student_is_another_one_if_its_teacher_is(tmp_path):
    other = dataclasses.replace(TINY_STUDY, sets={"teacher": ("training.steps=999",)})
    name = "dualdistill-centerpoint seed 0"
    assert jobs_of(TINY_STUDY, tmp_path)[name].folder != jobs_of(other, tmp_path)[name].folder
    alone = "student seed 0"
    assert jobs_of(TINY_STUDY, tmp_path)[alone].folder == jobs_of(other, tmp_path)[alone].folder


def test_the_student_alone_is_compared_with_every_teacher_and_the_others_with_their_own(tmp_path):
    study, _ = STUDIES["paper"].present()
    jobs = {job.row: job for job in jobs_of(study, tmp_path).values()}
    assert set(jobs["student"].compared_with) == {"synthetic/teacher-centerpoint", "synthetic/teacher-mvp"}
    assert set(jobs["dualdistill-mvp"].compared_with) == {"synthetic/teacher-mvp"}
    assert jobs["pretraining"].compared_with == {}


def test_students_start_from_the_pretrained_one_and_are_others_if_it_is(tmp_path):
    study, _ = STUDIES["paper"].present()
    jobs = {job.row: job for job in jobs_of(study, tmp_path).values()}
    assert jobs["pretraining"].starts_from == {} == jobs["teacher-centerpoint"].starts_from
    for row in study.rows():
        assert jobs[row].starts_from == {"synthetic/student": jobs["pretraining"].folder}
        assert jobs["pretraining"].folder in jobs[row].waits_for
    longer = dataclasses.replace(study.pretraining, sets=("training.steps=999",))
    others = jobs_of(dataclasses.replace(study, pretraining=longer), tmp_path)
    name = f"student seed {study.seeds[0]}"
    assert others[name].folder != jobs_of(study, tmp_path)[name].folder


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_resolves_its_experiments_at_one_budget_but_for_rows_that_say_so(name, tmp_path):
    study, _ = STUDIES[name].present()
    students = [job for job in jobs_of(study, tmp_path).values() if job.row in study.rows()]
    assert len({job.row for job in students}) == len(study.rows())
    alike = [job for job in students if not study.rows()[job.row].sets]

    def settings(jobs: list[Job], without: tuple[str, ...] = ()) -> set[str]:
        training = (job.identity["experiment"]["training"].items() for job in jobs)
        return {json.dumps({k: v for k, v in each if k not in without}, sort_keys=True) for each in training}

    assert len(settings([job for job in alike if job.learns_from])) == 1
    assert len(settings(alike, without=(*OF_TEACHING, "distiller_warmup_steps"))) == 1


def test_seeds_are_read_as_numbers():
    assert parse_seeds("0,3") == (0, 3)
    assert parse_seeds(None) is None
    for wrong in ("a", "1,1", ""):
        with pytest.raises(UserError, match="--seeds"):
            parse_seeds(wrong)


def played(monkeypatch, commands: dict[str, str]) -> list[str]:
    """Let a shell command stand for each row's process; returns the order in which jobs start."""
    started: list[str] = []

    def begin(job: Job, threads: int) -> subprocess.Popen[bytes]:
        started.append(job.name)
        return run_module.spawn(["sh", "-c", commands.get(job.row, "true")])

    monkeypatch.setattr(run_module, "start", begin)
    return started


def queue_of(jobs: list[Job], workers: int = 2) -> tuple[run_module._Queue, Console]:
    console = Console(file=io.StringIO(), width=200)
    times = run_module._Times()
    return run_module._Queue(console=console, todo=jobs, times=times, workers=workers, threads=1), console


def test_nothing_starts_before_what_it_needs_is_done(monkeypatch, tmp_path):
    started = played(monkeypatch, {"teacher-centerpoint": "sleep 0.5"})
    queue, console = queue_of(list(jobs_of(TINY_STUDY, tmp_path).values()), workers=4)
    queue.run(None)
    assert started[0] == "teacher-centerpoint seed 0"
    assert len(started) == len(set(started)) == 10
    said = console.file.getvalue()
    assert said.index("finished teacher-centerpoint") < said.index("started  dualdistill-centerpoint")
    assert "10 of 10 done" in said


def test_a_failure_stops_only_what_needs_it(monkeypatch, tmp_path):
    jobs = list(jobs_of(TINY_STUDY, tmp_path).values())
    played(monkeypatch, {"distillbev-centerpoint": "exit 3"})
    queue, console = queue_of(jobs)
    with pytest.raises(SystemExit) as stop:
        queue.run(None)
    assert stop.value.code == 1
    assert {job.row for job in queue.failed} == {"distillbev-centerpoint"}
    assert queue.done == 7
    started = played(monkeypatch, {"teacher-centerpoint": "exit 3"})
    queue, console = queue_of(jobs)
    with pytest.raises(SystemExit):
        queue.run(None)
    assert started == ["teacher-centerpoint seed 0"]
    assert "0 of 10 done" in console.file.getvalue()


def test_at_the_limit_running_jobs_are_interrupted_once_and_nothing_more_starts(monkeypatch, tmp_path):
    saved = tmp_path / "saved"
    patient = f"trap 'echo x >> {saved}; exit 130' INT; while :; do sleep 0.1; done"
    started = played(monkeypatch, {"teacher-centerpoint": patient})
    queue, console = queue_of(list(jobs_of(TINY_STUDY, tmp_path).values()))
    queue.run(time.monotonic() + 1.0)
    assert started == ["teacher-centerpoint seed 0"]
    assert saved.read_text() == "x\n"
    assert "Time is over" in console.file.getvalue()
    assert not queue.failed
