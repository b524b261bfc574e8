"""Shares of the gradient: what moves a student."""

import pytest
import torch
from safetensors.torch import load_file

from dualdistill.commands.evaluate import weights_of
from dualdistill.commands.gradients import DETECTION, gradient_shares
from dualdistill.errors import UserError


def test_every_group_of_losses_pulls_at_the_student_and_detection_along_with_itself(runs, console):
    before = load_file(weights_of(runs["distilled"], "last"))
    pulls = {pull.losses: pull for pull in gradient_shares(console, runs["distilled"], batches=2)}
    assert list(pulls) == [DETECTION, "depth", "mfd/stage1", "mfd/stage2", "mfd/neck", "crd", "crd/box"]
    assert sum(pull.share for pull in pulls.values()) == pytest.approx(1)
    assert pulls[DETECTION].along_detection == pytest.approx(1, abs=1e-4)
    assert all(-1.001 <= pull.along_detection <= 1.001 for pull in pulls.values())
    assert all(pulls[name].norm > 0 for name in (DETECTION, "depth", "mfd/neck", "crd"))
    after = load_file(weights_of(runs["distilled"], "last"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "mfd/neck" in console.file.getvalue()


def test_a_student_alone_has_its_own_losses_and_the_same_gradients_every_time(runs, console):
    once, again = (gradient_shares(console, runs["student"], batches=1) for _ in range(2))
    assert [pull.losses for pull in once] == [DETECTION, "depth"]
    assert [pull.norm for pull in once] == pytest.approx([pull.norm for pull in again], rel=1e-5)


def test_a_teacher_is_no_student(runs, console):
    with pytest.raises(UserError, match="trains no student"):
        gradient_shares(console, runs["teacher"])
