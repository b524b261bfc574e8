"""A voxel teacher and a student of it, trained, resumed and scored on a tiny world, in plain PyTorch."""

import io
import json
import shutil

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from dualdistill.commands.evaluate import WITHOUT_SPCONV, evaluate_anything
from dualdistill.commands.options.training import Evaluate, Resume, Train
from dualdistill.commands.train import resume_training, start_training
from dualdistill.experiment.plain import override, to_plain
from dualdistill.models.checkpoints import save_weights
from dualdistill.ops import sparse_spconv
from dualdistill.train.loaded_detector import LoadedDetector, weights_of
from dualdistill.train.run_folder import RunFolder
from tests.commands.conftest import STEPS, TINY_STUDENT, TINY_VOXEL_TEACHER

SETS = {
    "synthetic/teacher-centerpoint-voxel": [*TINY_VOXEL_TEACHER, *STEPS],
    "synthetic/dualdistill-centerpoint-voxel": [*TINY_VOXEL_TEACHER, *TINY_STUDENT, *STEPS],
}


@pytest.fixture(scope="module")
def voxel_runs(world, tmp_path_factory):
    """The runs of teacher and student, the student having found the teacher by itself."""
    out = tmp_path_factory.mktemp("voxels")
    quiet = Console(file=io.StringIO())
    return [
        start_training(quiet, Train(recipe, data=world, out=out, overrides=sets, seed=1, workers=0))
        for recipe, sets in SETS.items()
    ]


@pytest.fixture
def no_spconv(monkeypatch):
    """As on a machine without the extra."""

    def missing():
        raise sparse_spconv.UserError(sparse_spconv.MISSING)

    monkeypatch.setattr("dualdistill.models.voxels.spconv", missing)


def test_a_voxel_teacher_learns_and_its_student_learns_from_it(voxel_runs):
    teacher, student = (RunFolder.open(run) for run in voxel_runs)
    kept = load_file(teacher.checkpoint() / "teacher.safetensors")
    before = load_file(teacher.checkpoints / "step_000002" / "teacher.safetensors")
    sparse = [name for name in kept if name.startswith("encoder.sparse.") and name.endswith("conv.weight")]
    assert len(sparse) == 7
    assert all(not torch.equal(kept[name], before[name]) for name in sparse)
    assert student.experiment["teacher"]["path"] == str(weights_of(teacher.path, "last").resolve())
    last = json.loads(student.metrics.read_text().splitlines()[-1])
    assert last["step"] == 3
    assert not any("sparse" in name for name in load_file(student.checkpoint() / "student.safetensors"))


def test_both_are_scored(voxel_runs, console):
    for run in voxel_runs:
        metrics = evaluate_anything(console, Evaluate(run))
        assert 0 <= metrics["nd_score"] <= 1
    assert WITHOUT_SPCONV not in console.file.getvalue()  # the recipe says plain PyTorch itself


def test_resuming_a_voxel_teacher_gives_the_weights_of_an_unbroken_run(voxel_runs, console, tmp_path):
    again = tmp_path / "broken"
    shutil.copytree(voxel_runs[0], again, symlinks=True)
    (again / "finished.json").unlink()
    shutil.rmtree(again / "checkpoints" / "step_000003")
    RunFolder(again).point("last", "step_000002")
    resume_training(console, Resume(again, workers=0))
    want, came = (load_file(RunFolder(run).checkpoint() / "teacher.safetensors") for run in (voxel_runs[0], again))
    for name, value in want.items():
        torch.testing.assert_close(came[name], value, rtol=0, atol=0, msg=name)


def test_weights_of_a_machine_with_spconv_are_scored_alike_on_one_without(voxel_runs, console, tmp_path, no_spconv):
    trained = LoadedDetector.load(weights_of(voxel_runs[0], "last"))
    elsewhere = override(trained.experiment, ["teacher.voxel.backend=spconv"])
    path = tmp_path / "teacher.safetensors"
    save_weights(path, trained.detector, trained.facts | {"experiment": to_plain(elsewhere)})
    here, there = evaluate_anything(console, Evaluate(voxel_runs[0])), evaluate_anything(console, Evaluate(path))
    assert WITHOUT_SPCONV in " ".join(console.file.getvalue().split())
    assert there["nd_score"] == here["nd_score"]
    assert there["mean_dist_aps"] == here["mean_dist_aps"]
