"""Several processes, on one machine and on two that are pretended: one run, the same samples, one end."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from dualdistill.errors import UserError
from dualdistill.experiment.plain import override
from dualdistill.recipes.catalogue import find
from dualdistill.train.assemble import assemble
from dualdistill.train.launch import configure, launch
from dualdistill.train.metrics import read_metrics
from dualdistill.train.run_folder import RunFolder
from tests.commands.conftest import TINY_STUDENT, TINY_TEACHER
from tests.conftest import REPOSITORY
from tests.train.toy import CONFIG, STEPS, new_run, train

LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
INTERACTIVE = {"SLURM_JOB_NAME": "interactive", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
"""Variables of an interactive SLURM job: they number the shell, not the processes started from it."""


def start(folder, *options, **variables):
    inherited = {name: value for name, value in os.environ.items() if name not in LAUNCHERS}
    path = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
    return subprocess.Popen(
        [sys.executable, "-m", "tests.train.toy", str(folder), *options],
        env={**inherited, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    return [process.returncode for process in processes], "\n".join(outputs)


def only_run(folder):
    (path,) = (folder / "toy").iterdir()
    return RunFolder(path)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Records of one process that takes the whole batch."""
    run = new_run(tmp_path_factory.mktemp("alone"))
    train(run, replace(CONFIG, accumulate=2), dropout=0.0)
    return read_metrics(run.metrics)


def assert_equal_records(run, alone):
    for came, want in zip(read_metrics(run.metrics), alone, strict=True):
        for name in ("loss", "loss/sum", "gradient_norm"):
            assert came[name] == pytest.approx(want[name], rel=1e-5), name


def test_two_processes_with_averaging_and_accumulation_train_as_one_does(tmp_path, alone):
    codes, output = finish(start(tmp_path, "--devices", "2", **INTERACTIVE))
    assert codes == [0], output
    assert_equal_records(only_run(tmp_path), alone)
    assert only_run(tmp_path).checkpoint().name == f"step_{STEPS:06d}"


def test_two_machines_with_a_process_each_train_as_one_does(tmp_path, alone):
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29617"}
    both = [start(tmp_path, "--nodes", "2", NODE_RANK=str(node), **address) for node in range(2)]
    codes, output = finish(*both)
    assert codes == [0, 0], output
    assert_equal_records(only_run(tmp_path), alone)


def test_a_signal_to_one_process_stops_both_after_the_same_step(tmp_path, alone):
    codes, output = finish(start(tmp_path, "--devices", "2", "--signal-in", "1"))
    assert codes == [0], output
    ends = [json.loads((tmp_path / f"process{rank}.json").read_text()) for rank in range(2)]
    assert ends[0]["step"] == ends[1]["step"] < STEPS
    assert ends[0]["stopped"] == ends[1]["stopped"] == signal.SIGTERM
    run = only_run(tmp_path)
    assert run.checkpoint().name == f"step_{ends[0]['step']:06d}"
    train(run, replace(CONFIG, accumulate=2), dropout=0.0)  # on another number of processes, with the same samples
    assert_equal_records(run, alone)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_ends_the_other_and_resume_goes_on(tmp_path, alone, killed):
    options = ("--devices", "2", "--signal-in", str(killed), "--signal", str(int(signal.SIGKILL)))
    codes, output = finish(start(tmp_path, *options))  # returns once no process holds the output any more
    assert codes != [0], output
    run = only_run(tmp_path)
    assert run.checkpoint().name < f"step_{STEPS:06d}"
    train(run, replace(CONFIG, accumulate=2), dropout=0.0)
    assert_equal_records(run, alone)


def test_a_sample_that_is_not_finite_in_one_process_ends_both_with_its_name(tmp_path):
    codes, output = finish(start(tmp_path, "--devices", "2", "--bad", "3"))
    assert codes != [0]
    assert "DivergedError" in output
    assert "sample3" in output
    assert "gradient_norm, loss, loss/sum is not finite" in output


@pytest.mark.parametrize(
    ("variables", "devices", "nodes"),
    [
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, 1, 1),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, 4, 2),
        ({"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, 1, 1),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, 2, 1),
    ],
)
def test_a_launcher_with_another_number_of_processes_is_refused(monkeypatch, variables, devices, nodes):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"--devices {devices} --nodes {nodes} are {devices * nodes}"):
        launch(devices, nodes)


def test_processes_that_cannot_be_are_refused_before_they_start(monkeypatch):
    config = replace(CONFIG, sync_batch_norm=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="sync_batch_norm=true works on GPUs alone"):
        launch(1, 1, config)
    with pytest.raises(UserError, match="must be at least 1, got 0 and 1"):
        launch(0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="--devices 2: this machine has 1 GPUs"):
        launch(2)


def test_settings_reach_pytorch_and_networks_of_maps_alone_are_compiled(monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    experiment = override(
        find("synthetic/dualdistill-centerpoint").build(),
        [
            *TINY_STUDENT,
            *TINY_TEACHER,
            "training.compile=true",
            "training.tf32=false",
            "training.cudnn_benchmark=false",
        ],
    )
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
    try:
        configure(assemble(experiment), experiment.training)
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark = before
    assert sorted(compiled) == ["ImageEncoder", "ResNetEncoder", "Second", "SecondFpn", "SecondFpn"]
