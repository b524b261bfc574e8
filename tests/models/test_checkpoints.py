"""Weights on disk."""

import pytest
import torch
from torch import nn

from dualdistill.errors import UserError
from dualdistill.models.checkpoints import load_weights, read_facts, save_weights

FACTS = {"recipe": "synthetic/student", "role": "student", "step": 3}


def test_weights_and_facts_come_back_as_they_went(tmp_path):
    saved, loaded = nn.BatchNorm1d(5), nn.BatchNorm1d(5)
    saved(torch.randn(7, 5))
    save_weights(tmp_path / "w.safetensors", saved, FACTS)
    assert load_weights(loaded, tmp_path / "w.safetensors") == FACTS
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_weights_of_another_model_are_refused_with_every_difference_and_nothing_is_loaded(tmp_path):
    save_weights(tmp_path / "w.safetensors", nn.Linear(3, 4), FACTS)
    other = nn.Sequential(nn.Linear(3, 5))
    before = other[0].weight.clone()
    with pytest.raises(UserError, match=r"missing: 0\.weight") as problem:
        load_weights(other, tmp_path / "w.safetensors")
    assert "unexpected: weight" in str(problem.value)
    assert torch.equal(other[0].weight, before)
    with pytest.raises(UserError, match=r"shape of weight: expected \(5, 3\), came \(4, 3\)"):
        load_weights(nn.Linear(3, 5), tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [None, b"", b"garbage that is longer than a header"])
def test_a_missing_or_damaged_file_is_the_users_to_mend(tmp_path, content):
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"w\.safetensors"):
        read_facts(path)


def test_weights_of_someone_else_are_not_taken_for_ours(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="not written by dualdistill"):
        read_facts(tmp_path / "w.safetensors")
