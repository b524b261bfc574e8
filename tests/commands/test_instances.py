"""X-IS of the X3KD-style method, from masks to a trained student, on a tiny world."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from dualdistill.commands.compare import compare_runs
from dualdistill.commands.data import make_instances
from dualdistill.commands.evaluate import evaluate_anything
from dualdistill.commands.options.data import Instances
from dualdistill.commands.options.training import Compare, Evaluate, Plan, Resume, Train
from dualdistill.commands.plan import plan
from dualdistill.commands.train import resume_training, start_training
from dualdistill.errors import UserError
from dualdistill.train.run_folder import RunFolder
from tests.commands.conftest import STEPS, TINY_STUDENT, TINY_TEACHER

RECIPE = "synthetic/x3kd-full-centerpoint"
SETS = [*TINY_TEACHER, *TINY_STUDENT, *STEPS, "distiller.refine_channels=8"]


def said(console):
    return " ".join(console.file.getvalue().split())


@pytest.fixture
def given(runs, world, console, tmp_path, monkeypatch):
    """All that a training with X-IS is given, with a cache of its own."""
    monkeypatch.setenv("DUALDISTILL_CACHE", str(tmp_path / "cache"))
    return {
        "data": world,
        "out": tmp_path / "out",
        "overrides": SETS,
        "seed": 1,
        "workers": 0,
        "teacher": runs["teacher"],
    }


def test_a_student_learns_from_instances_and_goes_on_where_it_stopped(given, world, console, runs):
    with pytest.raises(UserError, match=r"36 key frame images without instance masks.*\n.*data instances .*--split"):
        start_training(console, Train(RECIPE, **given))
    make_instances(console, Instances(world, split="train"))
    assert "instance masks of 36 images made, 0 kept" in said(console)
    run = RunFolder(start_training(console, Train(RECIPE, **given)))
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    for name in ("xis/class", "xis/center"):
        assert all(record[f"loss/{name}"] > 0 for record in records)
    names = load_file(run.checkpoint() / "student.safetensors").keys()
    assert not any("instances" in name for name in names)
    evaluate_anything(console, Evaluate(run.path))  # without masks of the validation images

    whole = load_file(run.checkpoint() / "student.safetensors")
    (run.path / "finished.json").unlink()
    run.point("last", "step_000002")
    shutil.rmtree(run.path / "checkpoints" / "step_000003")
    resume_training(console, Resume(run.path, workers=0))
    again = load_file(run.checkpoint() / "student.safetensors")
    assert all(torch.equal(again[name], value) for name, value in whole.items())

    evaluate_anything(console, Evaluate(runs["student"]))
    (row,) = (
        row for row in compare_runs(console, Compare([run.path, runs["student"]])) if row["gain_mean_ap"] is not None
    )
    assert row["paired_seeds"] == [1]  # it is the same student, though its data have instances


def test_masks_are_made_once_and_each_noise_apart(given, world, console):
    make_instances(console, Instances(world))
    make_instances(console, Instances(world))
    assert "instance masks of 0 images made, 54 kept" in said(console)
    make_instances(console, Instances(world, noise=0.5))
    assert said(console).count("instance masks of 54 images made") == 2
    sets = [*SETS, "data.instances.noise=0.5"]
    assert start_training(console, Train(RECIPE, **given | {"overrides": sets})).is_dir()


def test_a_cached_teacher_and_instances_go_together(given, world, console, tmp_path):
    make_instances(console, Instances(world))
    assert start_training(console, Train(RECIPE, teacher_cache=tmp_path / "teacher", **given)).is_dir()


def test_a_plan_names_the_masks(console):
    facts = plan(console, Plan(RECIPE, overrides=[*TINY_TEACHER, *TINY_STUDENT]))
    assert facts["files"]["instance masks"] == "of every key frame image, synthetic masks (data instances)"
