"""Files that strangers made: what is read of them, and what is never executed."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dualdistill.convert.checkpoint_file import read_foreign
from dualdistill.errors import UserError
from dualdistill.structures import CLASSES

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.ones(2)}


def saved(path, content):
    torch.save(content, path)
    return path


def test_weights_come_without_wrappers_and_with_what_the_file_says_about_itself(tmp_path):
    content = {
        "state_dict": {f"module.{name}": tensor for name, tensor in WEIGHTS.items()},
        "meta": {"mmdet3d_version": "0.17.2+abc", "CLASSES": list(CLASSES), "iter": 70320, "epoch": 20},
        "optimizer": {"state": {}},
    }
    found = read_foreign(saved(tmp_path / "w.pth", content))
    assert found.state.keys() == WEIGHTS.keys()
    assert torch.equal(found.state["a.weight"], WEIGHTS["a.weight"])
    assert (found.prefix, found.left_out, found.step, found.boxes) == ("module.", ("optimizer",), 70320, "legacy")


@pytest.mark.parametrize(
    ("meta", "boxes"),
    [
        ({"mmdet3d_version": "1.0.0rc4"}, "new"),
        ({"mmengine_version": "0.8.4"}, "new"),
        ({"mmdet3d_version": "0.11.0"}, "legacy"),
        ({}, None),
    ],
)
def test_the_version_that_wrote_a_file_tells_its_boxes(tmp_path, meta, boxes):
    assert read_foreign(saved(tmp_path / "w.pth", {"state_dict": WEIGHTS, "meta": meta})).boxes == boxes


def test_bare_weights_and_safetensors_are_read_too(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    lightning = {"state_dict": {f"model.{name}": t for name, t in WEIGHTS.items()}, "global_step": 9, "epoch": 1}
    bare = read_foreign(saved(tmp_path / "bare.pth", WEIGHTS))
    assert bare.state.keys() == read_foreign(tmp_path / "w.safetensors").state.keys() == WEIGHTS.keys()
    assert (bare.step, bare.left_out) == (None, ())
    found = read_foreign(saved(tmp_path / "l.ckpt", lightning))
    assert (found.prefix, found.step, found.left_out) == ("model.", 9, ("global_step", "epoch"))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


@pytest.mark.parametrize("passenger", [np.float64(0.5), Bomb()], ids=["numpy scalar", "code"])
def test_a_file_with_python_objects_is_not_unpickled_but_explained(tmp_path, passenger):
    path = saved(tmp_path / "w.pth", {"state_dict": WEIGHTS, "meta": {"best": passenger}})
    with pytest.raises(UserError, match="holds Python objects") as problem:
        read_foreign(path)
    assert "weights_only=False" in str(problem.value)
    if isinstance(passenger, np.generic):
        assert "scalar" in str(problem.value)


def test_an_old_pickle_is_not_unpickled_either(tmp_path):
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"state_dict": Bomb()}))
    with pytest.raises(UserError, match=r"w\.pth"):
        read_foreign(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": WEIGHTS, "meta": {"CLASSES": ["car", "dog"]}}, "car, dog"),
        ({"epoch": 3, "lr": 0.1}, "no state dict.*epoch, lr.*float, int"),
        ([1, 2], "holds a list"),
    ],
)
def test_other_contents_are_refused_in_words(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_foreign(saved(tmp_path / "w.pth", content))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"garbage that is longer than a header"])
def test_a_missing_or_damaged_file_is_the_users_to_mend(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        read_foreign(tmp_path / name)
