"""LabelDistill in its stages, on a tiny world: teacher, label encoder, student."""

import io
import json
import shutil

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from dualdistill.commands.compare import compare_runs
from dualdistill.commands.evaluate import evaluate_anything
from dualdistill.commands.options.training import Compare, Evaluate, Resume, Train
from dualdistill.commands.train import resume_training, start_training
from dualdistill.errors import UserError
from dualdistill.evaluate.submission import SOURCES
from dualdistill.train.loaded_detector import LoadedDetector, weights_of
from dualdistill.train.run_folder import RunFolder
from dualdistill.train.trained_weights import TrainedWeights
from tests.commands.conftest import STEPS, TINY_STUDENT, TINY_TEACHER

SMALL_ENCODER = ("label_encoder.hidden_channels=8",)
SETS = {
    "synthetic/teacher-centerpoint": [*TINY_TEACHER, *STEPS],
    "synthetic/label-encoder-centerpoint": [*TINY_TEACHER, *SMALL_ENCODER, *STEPS],
    "synthetic/labeldistill-centerpoint": [*TINY_TEACHER, *SMALL_ENCODER, *TINY_STUDENT, *STEPS],
}


def train(recipe, world, out, *, seed=1, **kwargs):
    quiet = Console(file=io.StringIO())
    return start_training(
        quiet, Train(recipe, data=world, out=out, overrides=SETS[recipe], seed=seed, workers=0, **kwargs)
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def stages(world, out):
    """The runs of the three stages, each having found the one before; the encoder is scored before it teaches."""
    found = {"teacher": train("synthetic/teacher-centerpoint", world, out)}
    found["encoder"] = train("synthetic/label-encoder-centerpoint", world, out)
    evaluate_anything(Console(file=io.StringIO()), Evaluate(found["encoder"]))
    found["student"] = train("synthetic/labeldistill-centerpoint", world, out)
    return found


def broken(run, path, role):
    """A copy of a run that was interrupted after its first checkpoint."""
    shutil.copytree(run, path, symlinks=True)
    (path / "finished.json").unlink()
    shutil.rmtree(path / "checkpoints" / "step_000003")
    RunFolder(path).point("last", "step_000002")
    assert (RunFolder(path).checkpoint() / f"{role}.safetensors").is_file()
    return path


def test_each_stage_says_whom_it_learnt_from(stages):
    encoder, student = (RunFolder.open(stages[name]).experiment for name in ("encoder", "student"))
    assert encoder["teacher"]["recipe"] == student["teacher"]["recipe"] == "synthetic/teacher-centerpoint"
    assert encoder["label_encoder"] is None
    told_by = student["label_encoder"]
    assert told_by["path"] == str(weights_of(stages["encoder"], "last").resolve())
    assert told_by["score"] is not None
    card = (stages["student"] / "card.md").read_text()
    assert f"label encoder: synthetic/label-encoder-centerpoint, step 3, sha256 {told_by['sha256'][:16]}" in card
    assert f"mAP {told_by['score']['mAP']:.4f}" in card


def test_the_label_encoders_weights_hold_nothing_of_the_teacher_and_load_into_the_same_detector(stages):
    path = weights_of(stages["encoder"], "last")
    assert path.name == "label_encoder.safetensors"
    kept = load_file(path)
    assert all(name.startswith("encoder.") for name in kept)
    trained = LoadedDetector.load(path)
    assert trained.experiment.role == "label_encoder"
    state = trained.detector.state_dict()
    assert all(torch.equal(state[name], value) for name, value in kept.items())


def test_the_student_checkpoint_holds_neither_label_encoder_nor_adaptors(stages):
    folder = RunFolder.open(stages["student"]).checkpoint()
    names = load_file(folder / "student.safetensors").keys()
    assert not any("adaptors" in name or "encoder.of_box" in name for name in names)
    assert all("adaptors" in name for name in load_file(folder / "distiller.safetensors"))


def test_a_label_encoder_is_evaluated_as_the_oracle_it_is(stages, console):
    evaluate_anything(console, Evaluate(stages["encoder"]))
    assert "gets the annotations as its input" in " ".join(console.file.getvalue().split())
    results = RunFolder(stages["encoder"]).evaluation("step_000003") / "results_nusc.json"
    used = {name for name in SOURCES if json.loads(results.read_text())["meta"][f"use_{name}"]}
    assert used == {"external"}


def test_a_comparison_tells_the_three_apart(stages, console):
    for name in ("teacher", "student"):
        evaluate_anything(console, Evaluate(stages[name]))
    rows = compare_runs(console, Compare(list(stages.values())))
    assert [row["role"] for row in rows] == ["teacher", "label_encoder", "student"]
    assert [row["teacher"] for row in rows] == [None, "synthetic/teacher-centerpoint", "synthetic/teacher-centerpoint"]
    said = " ".join(console.file.getvalue().split())
    assert "label-encoder-centerpoint" in said
    assert "gets the annotations as its input" in said


@pytest.mark.parametrize(("stage", "role"), [("encoder", "label_encoder"), ("student", "student")])
def test_resuming_a_stage_gives_the_weights_of_an_unbroken_run(stages, console, tmp_path, stage, role):
    again = broken(stages[stage], tmp_path / "broken", role)
    resume_training(console, Resume(again, workers=0))
    want, came = (load_file(RunFolder(run).checkpoint() / f"{role}.safetensors") for run in (stages[stage], again))
    for name, value in want.items():
        torch.testing.assert_close(came[name], value, rtol=0, atol=0, msg=name)


def test_a_label_encoder_of_another_teacher_is_not_found_and_is_refused_by_name(stages, out, world, tmp_path):
    other = train("synthetic/teacher-centerpoint", world, tmp_path, seed=2)
    recipe = "synthetic/labeldistill-centerpoint"
    with pytest.raises(UserError, match=r"(?s)has no finished run of it.*--teacher.*was trained for the head of"):
        train(recipe, world, out, teacher=other)
    with pytest.raises(UserError, match="was trained for the head of"):
        train(recipe, world, tmp_path, label_encoder=stages["encoder"])


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("synthetic/labeldistill-centerpoint", {"label_encoder": "teacher"}, "expected the weights of a label encoder"),
        ("synthetic/labeldistill-centerpoint", {"teacher": "encoder"}, "expected the weights of a teacher"),
        ("synthetic/label-encoder-centerpoint", {"label_encoder": "encoder"}, "--label-encoder has no effect"),
        ("synthetic/teacher-centerpoint", {"teacher": "teacher"}, "--teacher has no effect"),
    ],
)
def test_weights_in_the_wrong_place_are_named(stages, world, tmp_path, recipe, options, message):
    given = {name: stages[which] for name, which in options.items()}
    given = {"teacher": stages["teacher"]} | given if "labeldistill" in recipe else given
    with pytest.raises(UserError, match=message):
        train(recipe, world, tmp_path, **given)
    assert not any(tmp_path.iterdir())


def test_a_student_without_a_label_encoder_to_be_found_is_told_to_train_one(stages, world, tmp_path):
    with pytest.raises(UserError, match=r"train synthetic/label-encoder-centerpoint .*--teacher"):
        train("synthetic/labeldistill-centerpoint", world, tmp_path, teacher=stages["teacher"])


def test_weights_that_are_gone_or_changed_are_not_taken(stages, tmp_path):
    identity = RunFolder.open(stages["encoder"]).experiment["teacher"]
    with pytest.raises(UserError, match="is gone"):
        TrainedWeights.recall(identity | {"path": str(tmp_path / "teacher.safetensors")})
    with pytest.raises(UserError, match="has changed"):
        TrainedWeights.recall(identity | {"sha256": "0" * 64})
