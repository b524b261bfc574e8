"""Official and custom splits."""

import json

import pytest

from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import official_splits, samples_of_split
from dualdistill.errors import UserError
from tests.data.tiny_root import TinyRoot


def test_the_official_splits_have_their_sizes_and_do_not_meet() -> None:
    splits = {name: set(scenes) for name, scenes in official_splits().items()}
    sizes = {"train": 700, "val": 150, "test": 150, "mini_train": 8, "mini_val": 2}
    assert {name: len(splits[name]) for name in sizes} == sizes
    assert len(splits["train"] | splits["val"] | splits["test"]) == 1000
    assert splits["train"] == splits["train_detect"] | splits["train_track"]
    assert len(splits["train_detect"]) == len(splits["train_track"]) == 350
    assert splits["mini_val"] == {"scene-0103", "scene-0916"}
    assert splits["mini_train"] | splits["mini_val"] <= splits["train"] | splits["val"]


def test_a_cut_root_gives_what_it_has_of_a_split(tiny_index: NuscenesIndex) -> None:
    assert samples_of_split(tiny_index, "mini_train").tolist() == [0, 1, 2, 3, 4, 5]
    assert samples_of_split(tiny_index, "mini_val").tolist() == [6, 7, 8, 9]
    assert samples_of_split(tiny_index, "all").tolist() == list(range(10))


def test_an_empty_or_unknown_split_lists_what_there_is(tiny_index: NuscenesIndex) -> None:
    with pytest.raises(UserError, match=r"'test' has no scene in .*mini_train.*Scenes there: scene-0061, scene-0103"):
        samples_of_split(tiny_index, "test")
    with pytest.raises(UserError, match=r"'vall' is not a split of .*mini_val"):
        samples_of_split(tiny_index, "vall")


def test_a_roots_own_splits_go_first(own_root: TinyRoot) -> None:
    path = own_root.path / own_root.version / "splits.json"
    path.write_text(json.dumps({"val": ["scene-0061"], "nothing": []}))
    index = NuscenesIndex.open(own_root.path)
    assert samples_of_split(index, "val").tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="'nothing' has no scene"):
        samples_of_split(index, "nothing")


@pytest.mark.parametrize("content", ['["scene-0061"]', '{"val": "scene-0061"}', "{"])
def test_custom_splits_of_another_form_are_named(own_root: TinyRoot, content: str) -> None:
    (own_root.path / own_root.version / "splits.json").write_text(content)
    with pytest.raises(UserError, match=r"splits\.json"):
        samples_of_split(NuscenesIndex.open(own_root.path), "val")


@pytest.mark.nuscenes
def test_the_real_cut_is_part_of_val(nuscenes_index: NuscenesIndex) -> None:
    assert len(samples_of_split(nuscenes_index, "val")) == 20
    with pytest.raises(UserError, match="scene-0523"):
        samples_of_split(nuscenes_index, "train")
