"""Shares of the gradient: what moves a student."""

import pytest
import torch
from safetensors.torch import load_file

from dualdistill.commands.gradients import DETECTION, gradient_shares, show_gradient_shares
from dualdistill.commands.options.training import Gradients
from dualdistill.errors import UserError
from dualdistill.train.loaded_detector import weights_of


def test_every_group_of_losses_has_a_gradient_and_no_parameter_changes(runs):
    before = load_file(weights_of(runs["distilled"], "last"))
    found = gradient_shares(Gradients(runs["distilled"], batches=2))
    shares = {share.losses: share for share in found}
    assert list(shares) == [DETECTION, "depth", "mfd/stage1", "mfd/stage2", "mfd/neck", "crd", "crd/box"]
    assert sum(share.share for share in shares.values()) == pytest.approx(1)
    assert shares[DETECTION].along_detection == pytest.approx(1, abs=1e-4)
    assert all(-1.001 <= share.along_detection <= 1.001 for share in shares.values())
    assert all(shares[name].norm > 0 for name in (DETECTION, "depth", "mfd/neck", "crd"))
    after = load_file(weights_of(runs["distilled"], "last"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_student_alone_has_its_own_losses_and_the_same_gradients_every_time(runs):
    once, again = (gradient_shares(Gradients(runs["student"], batches=1)) for _ in range(2))
    assert [share.losses for share in once] == [DETECTION, "depth"]
    assert [share.norm for share in once] == pytest.approx([share.norm for share in again], rel=1e-5)


def test_a_teacher_is_no_student(runs):
    with pytest.raises(UserError, match="no run of a student"):
        gradient_shares(Gradients(runs["teacher"]))


def test_the_verb_prints_every_group(runs, console):
    rows = show_gradient_shares(console, Gradients(runs["student"], batches=1, checkpoint="last"))
    assert [row["losses"] for row in rows] == [DETECTION, "depth"]
    assert "Share (%)" in console.file.getvalue()
