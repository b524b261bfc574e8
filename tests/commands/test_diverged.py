"""Weights that diverged: a message that says whose they are and what to do, never a crash."""

import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dualdistill.commands.evaluate import evaluate_anything
from dualdistill.commands.options.deployment import Predict
from dualdistill.commands.options.training import Evaluate
from dualdistill.commands.predict import predict_sample
from dualdistill.errors import DivergedError, UserError
from dualdistill.models.layers.depth_net import DeformableConv
from dualdistill.train.loaded_detector import weights_of
from dualdistill.train.run_folder import RunFolder


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_offsets_that_are_not_finite_are_an_error_and_not_the_end_of_the_process(modulated, bad):
    layer = DeformableConv(2, 2, modulated=modulated)
    image = torch.rand(1, 2, 4, 5)
    image[0, 0, 1, 1] = bad  # times weights of zero: not a number
    with pytest.raises(DivergedError, match="deformable"):
        layer(image)


@pytest.mark.parametrize("far", [1e5, 1e12, 3e38])
@pytest.mark.parametrize("sign", [-1, 1])
def test_taps_far_outside_read_zeros(far, sign):
    layer = DeformableConv(2, 3, modulated=True, bias=False)
    with torch.no_grad():
        layer.offset.bias[:18] = sign * far
    image = torch.rand(1, 2, 4, 5, requires_grad=True)
    answer = layer(image)
    assert not answer.any()
    answer.sum().backward()
    assert not image.grad.any()


def diverged(runs, folder, role, change):
    """A copy of a run whose weights were changed."""
    shutil.copytree(runs[role], folder, symlinks=True)
    path = weights_of(folder, "last")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    change(state)
    save_file(state, path, metadata=metadata)
    return folder


def nan_everywhere(state):
    for name, value in state.items():
        if value.is_floating_point() and "running" not in name:
            state[name] = torch.full_like(value, float("nan"))


def huge_sizes(state):
    """Finite codes, infinite boxes, of which the detector is sure."""
    for name in state:
        if name.endswith(("heatmap.1.bias", "dim.1.bias")):
            state[name] = torch.full_like(state[name], 200.0 if "dim" in name else 5.0)


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize("change", [nan_everywhere, huge_sizes])
def test_evaluation_of_diverged_weights_says_whose_and_what_to_do(runs, world, console, tmp_path, role, change):
    run = diverged(runs, tmp_path / "run", role, change)
    with pytest.raises(UserError, match="diverged") as error:
        evaluate_anything(console, Evaluate(run, data=world))
    said = str(error.value)
    assert str(RunFolder(run).checkpoint()) in said
    assert "--checkpoint" in said
    assert "learning_rate" in said


def test_prediction_says_the_same(runs, world, console, tmp_path):
    run = diverged(runs, tmp_path / "run", "student", nan_everywhere)
    with pytest.raises(UserError, match="diverged"):
        predict_sample(console, Predict(run, data=world, sample="0", images=[]))
