"""Trainings that end early: by a signal, by numbers that are not finite, or because another process has them."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dualdistill.commands.evaluate import weights_of
from dualdistill.commands.options.training import Resume, Train
from dualdistill.commands.train import resume_training, start_training
from dualdistill.errors import DivergedError, UserError
from dualdistill.train.metrics import read_metrics
from dualdistill.train.run_folder import RunFolder
from dualdistill.train.state import TrainingState
from tests.commands.conftest import STEPS, TINY_STUDENT, TINY_TEACHER
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_stop_signal_saves_names_the_way_on_and_ends_with_its_exit_code(
    world, console, tmp_path, monkeypatch, name, code
):
    def step_and_signal(state, total, really=TrainingState.set_schedule):
        if state.step == 1:
            os.kill(os.getpid(), getattr(signal, name))
        really(state, total)

    monkeypatch.setattr(TrainingState, "set_schedule", step_and_signal)
    sets = [*TINY_TEACHER, *STEPS, "training.save_every=100"]
    given = {"data": world, "out": tmp_path, "overrides": sets, "seed": 0, "workers": 0, "check": False}
    with pytest.raises(SystemExit) as end:
        start_training(console, Train("synthetic/teacher-centerpoint", **given))
    assert end.value.code == code
    (path,) = (tmp_path / "synthetic/teacher-centerpoint").iterdir()
    assert f"dualdistill resume {path}" in console.file.getvalue().replace("\n", "")
    assert RunFolder(path).checkpoint().name == "step_000002"
    assert not (path / "finished.json").exists()
    resume_training(console, Resume(path, workers=0))
    assert [record["step"] for record in read_metrics(path / "metrics.jsonl")] == [1, 2, 3]


def test_ctrl_c_in_a_terminal_reaches_loader_processes_too_and_still_saves(world, tmp_path):
    sets = [*TINY_TEACHER, *STEPS, "training.steps=100000", "training.save_every=100000"]
    command = [sys.executable, "-m", "dualdistill.cli", "train", "synthetic/teacher-centerpoint", "--no-check"]
    command += ["--data", str(world), "--out", str(tmp_path), "--workers", "2"]
    command += [part for each in sets for part in ("--set", each)]
    process = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        while not [path for path in tmp_path.rglob("metrics.jsonl") if path.stat().st_size]:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        output = process.communicate(timeout=300)[0]
    finally:
        process.kill()
    assert process.returncode == 130, output
    (path,) = (tmp_path / "synthetic/teacher-centerpoint").iterdir()
    assert f"dualdistill resume {path}" in output
    step = read_metrics(path / "metrics.jsonl")[-1]["step"]
    assert RunFolder(path).checkpoint().name == f"step_{step:06d}"


def test_a_run_that_another_process_trains_is_not_resumed(runs, console, tmp_path):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(runs["student"], run.path)
    (run.path / "finished.json").unlink()
    program = (
        "import sys; from pathlib import Path; from dualdistill.train.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).lock():\n    print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(UserError, match="trained by another process"):
            resume_training(console, Resume(run.path, workers=0))
        holder.kill()


def test_a_checkpoint_that_does_not_load_is_left_out_with_a_line(runs, world, console, tmp_path):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(runs["student"], run.path)
    (run.path / "finished.json").unlink()
    (run.checkpoints / "step_000003" / "training_state" / "optimiser.pt").unlink()
    resume_training(console, Resume(run.path, workers=0))
    assert "left out step_000003" in console.file.getvalue()
    assert "going on at step 2 of 3" in console.file.getvalue()
    want, came = (
        load_file(RunFolder(path).checkpoint() / "student.safetensors") for path in (runs["student"], run.path)
    )
    assert all(torch.equal(came[name], value) for name, value in want.items())


def test_a_training_that_diverges_is_an_error_and_no_run_that_is_finished(world, console, tmp_path, monkeypatch):
    def spoil(state, total, really=TrainingState.set_schedule):
        if state.step == 1:
            next(state.training.detector.parameters()).data.fill_(3e38)
        really(state, total)

    monkeypatch.setattr(TrainingState, "set_schedule", spoil)
    given = {"data": world, "out": tmp_path, "overrides": [*TINY_STUDENT, *STEPS], "seed": 0, "workers": 0}
    with pytest.raises(DivergedError, match=r"diverged in step \d+: .* is not finite.*Samples: [0-9a-f]{32}"):
        start_training(console, Train("synthetic/student", **given))
    (path,) = (tmp_path / "synthetic/student").iterdir()
    assert not (path / "finished.json").exists()


def test_weights_that_are_not_finite_are_no_teacher(runs, world, console, tmp_path):
    path = weights_of(runs["teacher"], "last")
    bad = tmp_path / "bad.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name] = torch.full_like(state[name], torch.inf)
    save_file(state, bad, metadata=metadata)
    given = {"overrides": [*TINY_TEACHER, *TINY_STUDENT, *STEPS], "seed": 1, "workers": 0, "teacher": bad}
    with pytest.raises(DivergedError, match="not finite"):
        start_training(console, Train("synthetic/dualdistill-centerpoint", data=world, out=tmp_path, **given))
