"""AOA against recorded numbers of the released code (Gaeun-Kimm/DualDistill at e16e1678, CPU, float32).

The recordings hold one adapter of each encoder level at a reduced size, every parameter randomised.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dualdistill.distill.align import Aoa, OrthogonalMap, SemiOrthogonal, stage_aligner
from tests.parity.released_aoa import load_official_aoa, official_aoa_name

GOLDEN = Path(__file__).parent / "golden" / "aoa"


def recorded(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def under(prefix: str, arrays: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def released_adapter(case: str, map: OrthogonalMap) -> Aoa:
    arrays = recorded(case)
    outputs, inputs = arrays["orthogonal_weight"].shape
    height, width = arrays["x"].shape[-2:]
    alignment = "aoa" if map == "cayley" else "aoa-released"
    aoa = stage_aligner(alignment, (inputs, height, width), (outputs, 4 * height, 4 * width))
    load_official_aoa(aoa, under("w.", arrays))
    return aoa


@pytest.mark.parametrize("map", ["cayley", "householder"])
@pytest.mark.parametrize("case", ["aoa_bb1", "aoa_bb2"])
def test_the_projector_starts_at_the_recorded_matrix_under_every_map(case, map):
    assert_close(
        released_adapter(case, map).projector.weight,
        recorded(case)["orthogonal_weight"],
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("case", ["aoa_bb1", "aoa_bb2"])
def test_every_step_and_the_input_gradient_are_the_released_ones(case, mode):
    arrays = recorded(case)
    aoa = released_adapter(case, "cayley").train(mode == "train")
    x = arrays["x"].requires_grad_()

    if mode == "eval":  # in training mode a second pass would move the batch statistics
        tokens = (aoa.attention.keys(x) + aoa.attention.position).flatten(2).mT
        assert_close(aoa.attention.attend(tokens), arrays["eval.attn_out"], rtol=1e-4, atol=2e-5)
        assert_close(aoa.attention(x), arrays["eval.cap_out"], rtol=1e-4, atol=2e-5)
    y = aoa(x)
    (y * arrays["grad_out"]).sum().backward()

    assert_close(y, arrays[f"{mode}.y"], rtol=1e-4, atol=2e-5)
    assert_close(x.grad, arrays[f"{mode}.grad_x"], rtol=1e-3, atol=1e-4)
    if mode == "train":
        norm = aoa.attention.keys[1]
        assert_close(norm.running_mean, arrays["train.running_mean_after"], rtol=1e-4, atol=1e-5)
        assert_close(norm.running_var, arrays["train.running_var_after"], rtol=1e-4, atol=1e-5)


def test_parameter_gradients_are_the_released_ones_the_raw_householder_one_included():
    arrays = recorded("aoa_bb1")
    aoa = released_adapter("aoa_bb1", "householder").eval()
    (aoa(arrays["x"]) * arrays["grad_out"]).sum().backward()
    expected = under("eval.gw.", arrays)
    assert len(expected) == len(list(aoa.parameters()))
    for name, gradient in expected.items():
        own = aoa.get_parameter(official_aoa_name(name)).grad
        assert_close(own, gradient.view_as(own), rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_the_released_projector_dies_as_recorded_under_weight_decay_and_lives_without():
    arrays = recorded("orthogonal_weight_decay")
    schedule = json.loads((GOLDEN / "orthogonal_weight_decay.json").read_text())["hyperparameters"]
    for decay, label in ((0.01, "wd0.01"), (0.0, "wd0")):
        projector = SemiOrthogonal(12, 5, "householder")
        with torch.no_grad():
            projector.base.copy_(arrays["init.base"])
            projector.raw.copy_(arrays["init.original"])
        assert_close(projector.weight, arrays["init.weight"], rtol=1e-5, atol=1e-6)
        norms = _norms_while_training(projector, decay, schedule, arrays["x"], arrays["target"])
        assert_close(norms, arrays[f"{label}.weight_norm"], rtol=1e-4, atol=1e-5)
    assert_close(projector.weight, arrays["wd0.weight_after40"], rtol=1e-3, atol=1e-5)


def _norms_while_training(projector, decay, schedule, inputs, targets) -> torch.Tensor:
    optimizer = torch.optim.AdamW(projector.parameters(), weight_decay=decay)
    norms = []
    for step in range(schedule["iterations"]):
        progress = step / schedule["warmup_iters"]
        for group in optimizer.param_groups:
            group["lr"] = schedule["lr"] * (1 - (1 - progress) * (1 - schedule["warmup_ratio"]))
        optimizer.zero_grad()
        (projector(inputs[step]) - targets[step]).square().mean().backward()
        optimizer.step()
        norms.append(projector.weight.detach().norm())
    return torch.stack(norms)
