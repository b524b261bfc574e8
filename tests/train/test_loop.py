"""Laws of the training loop, on a toy network."""

import json
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.testing import assert_close

from dualdistill.errors import DivergedError, UserError
from dualdistill.train.metrics import read_metrics
from dualdistill.train.run_folder import RunFolder
from dualdistill.train.state import Checkpoints
from tests.train.toy import CONFIG, STEPS, Samples, new_run, train


def copy_of(run, folder):
    shutil.copytree(run.path, folder)
    return RunFolder(folder)


def drop_after(run, step):
    """A run as if it had been killed right after the checkpoint of a step."""
    for folder in run.all_checkpoints():
        if int(folder.name[5:]) > step:
            shutil.rmtree(folder)
    run.point("last", f"step_{step:06d}")


def records(run):
    """What is recorded, but for times."""
    return [{k: v for k, v in r.items() if k not in ("seconds", "data_share")} for r in read_metrics(run.metrics)]


def assert_same_training(came, want):
    assert records(came) == records(want)
    last = want.checkpoint()
    for path in sorted(last.rglob("*.safetensors")):
        tensors, expected = load_file(came.checkpoint() / path.relative_to(last)), load_file(path)
        assert all(torch.equal(tensors[name], value) for name, value in expected.items()), path
    states = [torch.load(run.checkpoint() / "training_state" / "optimiser.pt") for run in (came, want)]
    assert str(states[0]) == str(states[1])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_training_resumed_after_any_step_is_the_unbroken_one_bit_for_bit(tmp_path, accumulate):
    config = replace(CONFIG, accumulate=accumulate)
    whole = new_run(tmp_path)
    train(whole, config)
    for step in range(1, STEPS):
        broken = copy_of(whole, tmp_path / f"broken{step}")
        drop_after(broken, step)
        train(broken, config)
        assert_same_training(broken, whole)


def test_a_step_of_two_batches_has_the_gradient_of_one_batch_with_their_samples(tmp_path):
    still = replace(CONFIG, ema_decay=0.0, steps=3)
    runs = []
    for accumulate, batch_size in ((2, 2), (1, 4)):
        runs.append(new_run(tmp_path))
        train(runs[-1], replace(still, accumulate=accumulate, batch_size=batch_size), dropout=0.0)
    for came, want in zip(records(runs[0]), records(runs[1]), strict=True):
        assert came == pytest.approx(want, rel=1e-5)


def test_the_average_is_of_the_weights_after_each_step(tmp_path):
    run = new_run(tmp_path)
    train(run)
    average = None
    for folder in reversed(run.all_checkpoints()):
        raw = load_file(folder / "training_state" / "raw_weights.safetensors")
        average = raw if average is None else {name: 0.5 * average[name] + 0.5 * raw[name] for name in raw}
        for name, value in load_file(folder / "student.safetensors").items():
            assert_close(value, average[name])


def test_the_checkpoint_with_the_highest_score_is_kept_beside_the_newest(tmp_path):
    run = new_run(tmp_path)
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.25, 0.1])
    config = replace(CONFIG, save_every=2, validate_steps=1, keep_last=1)
    train(run, config, validate=lambda detector: {"mAP": 0.0, "NDS": next(scores)})
    assert run.checkpoint("best").name == "step_000002"
    assert run.checkpoint("last").name == "step_000006"
    assert [folder.name for folder in run.all_checkpoints()] == ["step_000006", "step_000002"]
    assert [record["validation/NDS"] for record in read_metrics(run.metrics)] == [0.1, 0.3, 0.2, 0.3, 0.25, 0.1]


def test_a_best_step_is_saved_where_no_checkpoint_was_due(tmp_path):
    run = new_run(tmp_path)
    scores = iter([0.1, 0.3, 0.2])
    config = replace(CONFIG, save_every=100, validate_steps=2)
    train(run, config, validate=lambda detector: {"mAP": 0.0, "NDS": next(scores)})
    assert run.checkpoint("best").name == "step_000004"


def test_validation_changes_nothing(tmp_path):
    def validate(detector):
        detector.eval()
        torch.rand(7)
        return {"mAP": 0.0, "NDS": 0.0}

    alone, validated = new_run(tmp_path), new_run(tmp_path)
    train(alone, replace(CONFIG, save_every=100))
    train(validated, replace(CONFIG, save_every=100, validate_steps=3), validate=validate)
    losses = [[record["loss"] for record in read_metrics(run.metrics)] for run in (alone, validated)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_ends_training_after_its_step_with_a_checkpoint_to_go_on_from(tmp_path, number):
    before = signal.getsignal(number)
    whole, stopped = new_run(tmp_path), new_run(tmp_path)
    config = replace(CONFIG, save_every=100)
    train(whole, config)
    came, state = train(stopped, config, samples=Samples(signal=number))
    assert came == number
    assert 2 < state.step < STEPS
    assert stopped.checkpoint().name == f"step_{state.step:06d}"
    assert signal.getsignal(number) == before
    assert train(stopped, config)[0] == 0
    assert_same_training(stopped, whole)


def test_a_loss_that_is_not_finite_ends_training_with_its_name_and_samples(tmp_path):
    run = new_run(tmp_path)
    with pytest.raises(DivergedError) as error:
        train(run, samples=Samples(bad=3))
    message = str(error.value)
    step = len(read_metrics(run.metrics)) + 1
    assert f"in step {step}: gradient_norm, loss, loss/sum is not finite" in message
    assert "sample3" in message
    assert run.checkpoint().name == f"step_{step - 1:06d}"
    assert all(value.isfinite().all() for value in load_file(run.checkpoint() / "student.safetensors").values())
    (saved,) = run.path.glob("diverged/*/*.safetensors")
    with safe_open(saved, framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
        assert not file.get_tensor("augmented_from_bev").isfinite().all()
    assert facts["step"] == step
    assert "sample3" in facts["samples"]


def test_an_error_that_weights_which_are_not_finite_cause_is_named(tmp_path):
    run = new_run(tmp_path)

    def fail(detector):
        with torch.no_grad():
            detector.layer[0].weight.fill_(torch.nan)
        return {"mAP": 0.0, "NDS": 0.0}

    def refuse(module, inputs):
        if not module.weight.isfinite().all():
            raise RuntimeError("all elements of input should be between 0 and 1")

    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: refuse(module, inputs) if isinstance(module, torch.nn.Linear) else None
    )
    try:
        config = replace(CONFIG, ema_decay=0.0, save_every=100, validate_steps=2)
        with pytest.raises(DivergedError, match=r"in step 3: detector\.layer\.0\.weight is not finite"):
            train(run, config, validate=fail)
    finally:
        handle.remove()


def state_of(config=CONFIG):
    from dualdistill.train.state import TrainingState
    from dualdistill.train.step import Training
    from tests.train.toy import Detector

    return TrainingState.initial(Training(Detector(0.0)), config)


def checkpoints_of(run):
    return Checkpoints(run, role="student", facts={"recipe": "toy"}, keep_last=None)


@pytest.mark.parametrize("harm", ["truncate", "delete", "not finite"])
def test_a_damaged_checkpoint_is_left_out_for_the_newest_complete_one(tmp_path, harm):
    run = new_run(tmp_path)
    train(run)
    last = run.checkpoint()
    if harm == "truncate":
        path = last / "training_state" / "optimiser.pt"
        path.write_bytes(path.read_bytes()[:-100])
    elif harm == "delete":
        (last / "student.safetensors").unlink()
    else:
        path = last / "student.safetensors"
        data = bytearray(path.read_bytes())
        data[-4:] = b"\x00\x00\xc0\x7f"
        path.write_bytes(data)
    state = state_of()
    folder, problems = checkpoints_of(run).restore_newest(state)
    assert folder.name == f"step_{STEPS - 1:06d}"
    assert state.step == STEPS - 1
    assert len(problems) == 1
    assert last.name in problems[0]


def test_without_a_checkpoint_that_loads_resuming_is_refused(tmp_path):
    run = new_run(tmp_path)
    train(run, replace(CONFIG, save_every=4))
    for folder in run.all_checkpoints():
        (folder / "student.safetensors").unlink()
    with pytest.raises(UserError, match=r"(?s)No checkpoint of .* can be restored.*step_000004"):
        checkpoints_of(run).restore_newest(state_of())


def test_a_missing_pointer_costs_nothing(tmp_path):
    run = new_run(tmp_path)
    train(run)
    (run.checkpoints / "last").unlink()
    assert checkpoints_of(run).restore_newest(state_of())[0].name == f"step_{STEPS:06d}"


def test_a_checkpoint_that_cannot_be_written_leaves_the_ones_before(tmp_path, monkeypatch):
    run = new_run(tmp_path)

    def nearly_full(held, path, really=torch.save):
        if "step_000003" in str(path):
            raise OSError(28, "No space left on device")
        really(held, path)

    monkeypatch.setattr("torch.save", nearly_full)
    with pytest.raises(UserError, match=r"(?s)the disk is full.*step_000002.*dualdistill resume"):
        train(run, CONFIG)
    assert run.checkpoint().name == "step_000002"
    assert [path.name for path in run.checkpoints.iterdir() if path.name.startswith(".")] == []
    monkeypatch.undo()
    train(run)
    whole = new_run(tmp_path)
    train(whole)
    assert records(run) == records(whole)


def test_a_draft_of_a_killed_process_is_removed_and_never_restored(tmp_path):
    run = new_run(tmp_path)
    draft = run.checkpoints / ".step_000003.new"
    draft.mkdir(parents=True)
    (draft / "student.safetensors").write_bytes(b"half")
    train(run)
    assert not draft.exists()
    assert len(run.all_checkpoints()) == STEPS


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        stopped, state = train(new_run(tmp_path), samples=Samples(signal=signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (stopped, state.step) == (0, STEPS)
