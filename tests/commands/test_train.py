"""`train` and `resume`, on a tiny world."""

import json
import shlex
import shutil

import pytest
import torch
from safetensors.torch import load_file

from dualdistill.commands.evaluate import evaluate_anything
from dualdistill.commands.options.training import Evaluate, Resume, Train
from dualdistill.commands.train import resume_training, start_training
from dualdistill.errors import UserError
from dualdistill.experiment.training import TrainingConfig
from dualdistill.train.loaded_detector import LoadedDetector, weights_of
from dualdistill.train.metrics import read_metrics
from dualdistill.train.run_folder import RunFolder
from tests.commands.conftest import STEPS, TINY_STUDENT, TINY_TEACHER
from tests.robust.outcome import run_command


def test_a_run_folder_holds_everything_needed_to_repeat_it(runs):
    run = RunFolder.open(runs["distilled"])
    record = run.experiment
    assert record["seed"] == 1
    assert record["recipe"] == "synthetic/dualdistill-centerpoint"
    assert record["teacher"]["recipe"] == "synthetic/teacher-centerpoint"
    assert len(record["teacher"]["sha256"]) == 64
    assert "training.steps=3" in record["overrides"]
    assert record["experiment"]["training"]["steps"] == 3
    assert (
        json.loads((run.path / "environment.json").read_text())["packages"]["torch"] == torch.__version__.split("+")[0]
    )
    assert "Repeat with" in (run.path / "card.md").read_text()
    assert [p.name for p in sorted(run.checkpoints.glob("step_*"))] == ["step_000002", "step_000003"]
    assert run.checkpoint("last").name == "step_000003"
    steps = [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()]
    assert steps == [1, 2, 3]


def test_a_student_checkpoint_holds_no_teacher_and_no_adapter_and_needs_no_other_file(runs):
    alone, distilled = (load_file(weights_of(runs[role], "last")) for role in ("student", "distilled"))
    assert {name: v.shape for name, v in alone.items()} == {name: v.shape for name, v in distilled.items()}
    assert LoadedDetector.load(weights_of(runs["distilled"], "last")).experiment.role == "student"


def test_resuming_gives_the_weights_of_an_unbroken_run(runs, world, console, tmp_path):
    unbroken = RunFolder.open(runs["distilled"])
    broken = tmp_path / "broken"
    shutil.copytree(unbroken.path, broken)
    (broken / "finished.json").unlink()
    shutil.rmtree(broken / "checkpoints" / "step_000003")
    RunFolder(broken).point("last", "step_000002")
    resume_training(console, Resume(broken, image_cache=tmp_path / "images", workers=0))
    assert list((tmp_path / "images").rglob("*.safetensors"))
    assert "image cache" in console.file.getvalue()
    for name in ("student.safetensors", "distiller.safetensors"):
        want, came = (load_file(run.checkpoint() / name) for run in (unbroken, RunFolder(broken)))
        for key, value in want.items():
            torch.testing.assert_close(came[key], value, rtol=0, atol=0, msg=key)
    logged = [json.loads(line)["step"] for line in (broken / "metrics.jsonl").read_text().splitlines()]
    assert logged == [1, 2, 3]


def test_a_step_is_on_record_before_its_checkpoint_is_there(world, console, tmp_path, monkeypatch):
    recorded = {}

    def point(run, name, target, really=RunFolder.point):
        if run.metrics.exists():
            recorded[target] = len(read_metrics(run.metrics))
        really(run, name, target)

    monkeypatch.setattr(RunFolder, "point", point)
    sets = [*TINY_TEACHER, *STEPS]
    start_training(
        console, Train("synthetic/teacher-centerpoint", data=world, out=tmp_path, overrides=sets, workers=0, seed=0)
    )
    assert recorded == {"step_000002": 2, "step_000003": 3}


def test_averaged_weights_are_kept_and_resumed(world, console, tmp_path):
    sets = [*TINY_TEACHER, *STEPS, "training.ema_decay=0.5"]
    path = start_training(
        console, Train("synthetic/teacher-centerpoint", data=world, out=tmp_path, overrides=sets, seed=0, workers=0)
    )
    run = RunFolder.open(path)
    kept = load_file(run.checkpoint() / "teacher.safetensors")
    raw = load_file(run.checkpoint() / "training_state" / "raw_weights.safetensors")
    assert kept.keys() == raw.keys()
    assert any(not torch.equal(kept[name], raw[name]) for name in kept)
    before = {name: value.clone() for name, value in kept.items()}
    (path / "finished.json").unlink()
    shutil.rmtree(run.checkpoints / "step_000003")
    run.point("last", "step_000002")
    resume_training(console, Resume(path, workers=0))
    again = load_file(run.checkpoint() / "teacher.safetensors")
    for name, value in before.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0, msg=name)


def test_a_teacher_does_not_change_while_it_teaches(runs):
    identity = RunFolder.open(runs["distilled"]).experiment["teacher"]
    from dualdistill.models.checkpoints import fingerprint

    assert fingerprint(weights_of(runs["teacher"], "last")) == identity["sha256"]


@pytest.mark.parametrize(
    ("recipe", "kwargs", "message"),
    [
        ("synthetic/studnt", {}, "Did you mean synthetic/student"),
        ("synthetic/student", {"overrides": ["student.bev.sell=1"]}, "Did you mean cell"),
        ("synthetic/student", {"overrides": ["training.steps=many"]}, "a whole number"),
        ("synthetic/dualdistill-centerpoint", {"overrides": ["student.head.head_channels=4"]}, "wants 8"),
        ("synthetic/student", {"version": "v1.0-mini"}, "v1.0-mini"),
        ("synthetic/student", {"split": "mini_train"}, "mini_train"),
        ("synthetic/dualdistill-centerpoint", {}, "train synthetic/teacher-centerpoint"),
    ],
)
def test_mistakes_are_named_before_a_run_folder_is_made(world, console, tmp_path, recipe, kwargs, message):
    kwargs = {"overrides": [], **kwargs}
    with pytest.raises(UserError, match=message):
        start_training(console, Train(recipe, data=world, out=tmp_path, seed=0, **kwargs))
    assert not any(tmp_path.iterdir())


def test_a_student_is_not_taken_for_a_teacher(runs, world, console, tmp_path):
    with pytest.raises(UserError, match="expected the weights of a teacher"):
        start_training(
            console,
            Train(
                "synthetic/dualdistill-centerpoint",
                data=world,
                out=tmp_path,
                overrides=[],
                seed=0,
                teacher=runs["student"],
            ),
        )


def test_a_teacher_of_other_widths_is_refused_with_the_differences(runs, world, console, tmp_path):
    with pytest.raises(UserError, match=r"another model(.|\n)*--set teacher\.pillar_channels=8 --set teacher\.stage"):
        start_training(
            console,
            Train(
                "synthetic/dualdistill-centerpoint",
                data=world,
                out=tmp_path,
                overrides=[*TINY_STUDENT, *STEPS, "init_head_from_teacher=false"],
                seed=0,
                teacher=runs["teacher"],
            ),
        )
    assert not any(tmp_path.iterdir())


def test_evaluating_a_run_and_its_result_file_gives_the_same_metrics(runs, world, console, tmp_path):
    by_run = evaluate_anything(console, Evaluate(runs["teacher"]))
    folder = RunFolder(runs["teacher"]).evaluation("step_000003")
    by_file = evaluate_anything(console, Evaluate(folder / "results_nusc.json", data=world, out=tmp_path))
    assert by_file["nd_score"] == by_run["nd_score"]
    assert by_file["mean_dist_aps"] == by_run["mean_dist_aps"]
    assert json.loads((tmp_path / "metrics.json").read_text())["nd_score"] == by_run["nd_score"]


def test_a_run_that_is_finished_has_nothing_left(runs, console):
    before = sorted(p.name for p in runs["student"].rglob("*"))
    resume_training(console, Resume(runs["student"]))
    assert sorted(p.name for p in runs["student"].rglob("*")) == before


def test_a_student_may_go_on_from_a_whole_trained_one_and_keeps_its_head(runs, world, console, tmp_path):
    trained = weights_of(runs["student"], "last")
    overrides = [*TINY_TEACHER, *TINY_STUDENT, *STEPS, f"student.pretrained={trained}", "init_head_from_teacher=false"]
    given = {"data": world, "out": tmp_path, "seed": 1, "workers": 0, "teacher": runs["teacher"]}
    still = ["training.optimiser.learning_rate=1e-30", "training.steps=1"]
    path = start_training(console, Train("synthetic/dualdistill-centerpoint", overrides=[*overrides, *still], **given))
    before, after = load_file(trained), load_file(weights_of(path, "last"))
    for name in before:
        if "running" not in name and "tracked" not in name:  # batch norm has seen one more batch
            assert torch.equal(after[name], before[name]), name
    assert LoadedDetector.load(weights_of(path, "last")).experiment.student.pretrained == str(trained)


def test_weights_of_another_student_are_no_start(runs, world, console, tmp_path):
    sets = [*TINY_STUDENT, *STEPS, f"student.pretrained={weights_of(runs['student'], 'last')}"]
    with pytest.raises(UserError, match=r"another model .*(\n.*)*shape of image.neck"):
        start_training(
            console,
            Train(
                "synthetic/student",
                data=world,
                out=tmp_path,
                overrides=[*sets, "student.image.channels=16"],
                seed=1,
                workers=0,
            ),
        )


def test_a_distiller_that_goes_first_learns_beside_a_student_that_stays(runs, world, console, tmp_path):
    trained = weights_of(runs["student"], "last")
    overrides = [*TINY_TEACHER, *TINY_STUDENT, *STEPS, f"student.pretrained={trained}", "init_head_from_teacher=false"]
    path = start_training(
        console,
        Train(
            "synthetic/dualdistill-centerpoint",
            data=world,
            out=tmp_path,
            overrides=[*overrides, "training.distiller_warmup_steps=2"],
            seed=1,
            workers=0,
            teacher=runs["teacher"],
        ),
    )
    run = RunFolder.open(path)

    def moved(name: str, before: dict[str, torch.Tensor], step: str) -> list[str]:
        after = load_file(run.checkpoints / step / f"{name}.safetensors")
        statistics = ("running", "tracked")
        return [key for key in before if not any(s in key for s in statistics) and not after[key].equal(before[key])]

    assert moved("student", load_file(trained), "step_000002") == []
    assert moved("student", load_file(trained), "step_000003")
    early = load_file(run.checkpoints / "step_000002" / "distiller.safetensors")
    assert moved("distiller", early, "step_000003")


def test_a_student_whose_teacher_leaves_learns_on_alone(runs, world, console, tmp_path):
    path = start_training(
        console,
        Train(
            "synthetic/dualdistill-centerpoint",
            data=world,
            out=tmp_path,
            overrides=[*TINY_TEACHER, *TINY_STUDENT, *STEPS, "training.distill_fraction=0.6"],
            seed=1,
            workers=0,
            teacher=runs["teacher"],
        ),
    )
    run = RunFolder.open(path)
    own = {name for name in read_metrics(runs["student"] / "metrics.jsonl")[0] if name.startswith("loss/")}
    losses = [{name for name in record if name.startswith("loss/")} for record in read_metrics(path / "metrics.jsonl")]
    assert losses[0] == losses[1] > own
    assert losses[2] == own
    student = [load_file(run.checkpoints / step / "student.safetensors") for step in ("step_000002", "step_000003")]
    assert not student[0]["head.shared.0.weight"].equal(student[1]["head.shared.0.weight"])


def test_a_distiller_that_goes_first_must_leave_time_to_teach():
    TrainingConfig(epochs=None, steps=10, distiller_warmup_steps=5, distill_fraction=0.6)
    with pytest.raises(ValueError, match="must leave steps in which the student is distilled"):
        TrainingConfig(epochs=None, steps=10, distiller_warmup_steps=6, distill_fraction=0.6)


def test_without_a_distiller_none_goes_first(world, console, tmp_path):
    with pytest.raises(UserError, match="distiller_warmup_steps has no effect"):
        start_training(
            console,
            Train(
                "synthetic/student", data=world, out=tmp_path, overrides=["training.distiller_warmup_steps=2"], seed=1
            ),
        )


def test_a_student_may_take_the_teachers_head_and_nothing_else(runs, world, console, tmp_path):
    sets = [*TINY_TEACHER, *TINY_STUDENT, *STEPS, "training.distill_fraction=0"]
    given = {"data": world, "out": tmp_path, "overrides": sets, "seed": 1, "workers": 0, "teacher": runs["teacher"]}
    path = start_training(console, Train("synthetic/dualdistill-centerpoint", **given))
    own = {name for name in read_metrics(runs["student"] / "metrics.jsonl")[0] if name.startswith("loss/")}
    for record in read_metrics(path / "metrics.jsonl"):
        assert {name for name in record if name.startswith("loss/")} == own


def test_a_bounded_distillation_resumes_with_the_gradients_it_measured(runs, world, console, tmp_path):
    sets = [*TINY_TEACHER, *TINY_STUDENT, *STEPS, "training.gradient_share=0.5"]
    given = {"data": world, "out": tmp_path, "overrides": sets, "seed": 1, "workers": 0, "teacher": runs["teacher"]}
    path = start_training(console, Train("synthetic/dualdistill-centerpoint", **given))
    whole = read_metrics(path / "metrics.jsonl")
    assert all(0 < record["diagnostics/distill_factor"] < 1 for record in whole)
    (path / "finished.json").unlink()
    run = RunFolder.open(path)
    run.point("last", "step_000002")
    resume_training(console, Resume(path, workers=0))
    assert read_metrics(path / "metrics.jsonl")[-1]["loss"] == pytest.approx(whole[-1]["loss"])


def test_a_validation_gives_the_score_that_evaluation_gives_and_names_the_best_checkpoint(world, console, tmp_path):
    sets = [*TINY_TEACHER, *STEPS, "training.validate_steps=2", "training.ema_decay=0.5"]
    given = {"data": world, "out": tmp_path, "overrides": sets, "seed": 0, "workers": 0}
    run = RunFolder.open(start_training(console, Train("synthetic/teacher-centerpoint", **given)))
    records = {int(record["step"]): record for record in read_metrics(run.metrics)}
    assert [step for step, record in records.items() if "validation/NDS" in record] == [2, 3]
    best = max((2, 3), key=lambda step: (records[step]["validation/NDS"], -step))
    assert run.checkpoint("best").name == f"step_{best:06d}"
    scores = evaluate_anything(console, Evaluate(run.path, checkpoint="best"))
    assert records[best]["validation/NDS"] == pytest.approx(scores["nd_score"], abs=1e-9)
    assert records[best]["validation/mAP"] == pytest.approx(scores["mean_ap"], abs=1e-9)


def test_a_student_is_validated_without_the_points_of_its_teacher(runs, world, console, tmp_path, monkeypatch):
    sets = [*TINY_TEACHER, *TINY_STUDENT, *STEPS, "training.validate_epochs=100", "training.validate_samples=2"]
    given = {"data": world, "out": tmp_path, "overrides": sets, "seed": 1, "workers": 0, "teacher": runs["teacher"]}
    path = start_training(console, Train("synthetic/dualdistill-centerpoint", **given))
    alone, validated = (read_metrics(run / "metrics.jsonl") for run in (runs["distilled"], path))
    assert [record["loss"] for record in validated] == [record["loss"] for record in alone]
    assert 0 <= validated[-1]["validation/NDS"] <= 1


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["training.validate_samples=2"], "validate_samples has no effect"),
        (["training.validate_steps=0"], "validate_steps.*whole number from 1"),
        (["training.validate_steps=1", "training.validate_epochs=1"], "either in validate_steps or in validate_epochs"),
        (["training.keep_last=0"], "keep_last.*whole number from 1"),
    ],
)
def test_intervals_that_cannot_be_meant_are_refused(world, console, tmp_path, sets, message):
    with pytest.raises(UserError, match=message):
        start_training(console, Train("synthetic/student", data=world, out=tmp_path, overrides=sets, seed=0))
    assert not any(tmp_path.iterdir())


def test_the_card_repeats_the_run(runs):
    card = (runs["distilled"] / "card.md").read_text()
    for option in ("--version", "--split", "--teacher", "--seed 1", "--set training.steps=3"):
        assert option in card


def test_the_command_of_a_card_repeats_its_run(runs, tmp_path):
    card = (runs["distilled"] / "card.md").read_text()
    (line,) = (line.strip() for line in card.splitlines() if line.strip().startswith("dualdistill train"))
    ending = run_command([*shlex.split(line)[1:], "--out", str(tmp_path), "--workers", "0"], limit=600)
    assert ending.code == 0, ending.text
    (again,) = tmp_path.glob("*/*/*")
    for name in ("student.safetensors", "distiller.safetensors"):
        want, came = (load_file(RunFolder(run).checkpoint() / name) for run in (runs["distilled"], again))
        assert all(torch.equal(came[key], value) for key, value in want.items())
    ours, theirs = (RunFolder(run).experiment for run in (again, runs["distilled"]))
    for experiment in (ours, theirs):
        experiment["teacher"].pop("score")  # of an evaluation, which may have come between
    assert ours == theirs


def test_what_was_learnt_from_is_printed_with_its_score(runs, world, console, tmp_path):
    sets = [*TINY_TEACHER, *TINY_STUDENT, *STEPS]
    given = {"data": world, "out": runs["teacher"].parents[2], "overrides": sets, "seed": 7, "workers": 0}
    start_training(console, Train("synthetic/dualdistill-centerpoint", **given))
    printed = console.file.getvalue().replace("\n", "")
    assert f"distilled from {weights_of(runs['teacher'], 'last')} (synthetic/teacher-centerpoint, step 3, " in printed
