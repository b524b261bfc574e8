"""Parts of a split, and the score worth showing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_scenes, samples_of_split
from dualdistill.errors import UserError
from dualdistill.evaluate.ground_truth import ground_truth_of_split
from dualdistill.evaluate.metrics import balanced_score
from dualdistill.evaluate.records import Detections
from dualdistill.evaluate.scoring import slices
from tests.evaluate.evaluation_worlds import boxes_of, oracle, world_of


@pytest.fixture(scope="module")
def described(world, tmp_path_factory) -> NuscenesIndex:
    """The tiny world with a first scene by night in the rain."""
    root = tmp_path_factory.mktemp("described")
    for folder in ("samples", "sweeps", "maps"):
        (root / folder).symlink_to(world / folder)
    tables = root / "v1.0-trainval"
    tables.mkdir()
    for file in (world / "v1.0-trainval").iterdir():
        (tables / file.name).write_bytes(file.read_bytes())
    scenes = json.loads((tables / "scene.json").read_text())
    scenes[0]["description"] = "Night, heavy rain, parked cars"
    (tables / "scene.json").write_text(json.dumps(scenes))
    return NuscenesIndex.open(root)


def test_bands_share_out_the_objects_and_who_answers_with_the_truth_is_perfect_in_each(described):
    truth = ground_truth_of_split(described, "all")
    parts = {part.name: part for part in slices(described, truth, oracle(truth.boxes))}
    bands = [part for name, part in parts.items() if " m" in name]
    assert all(part.mean_ap == pytest.approx(1) for part in parts.values())
    assert sum(band.objects for band in bands) == parts["night"].objects + parts["neither night nor rain"].objects
    assert parts["night"] == replace(parts["rain"], name="night")


def test_errors_of_one_condition_do_not_count_in_the_other(described):
    truth = ground_truth_of_split(described, "all")
    by_day = truth.scene[truth.boxes.sample] != truth.scene[0]
    parts = {part.name: part.mean_ap for part in slices(described, truth, oracle(truth.boxes).select(by_day))}
    assert parts["night"] == 0
    assert parts["neither night nor rain"] == pytest.approx(1)


def test_some_scenes_of_a_split_are_chosen_by_name_or_evenly(described):
    names = [described.scene_name[s] for s in dict.fromkeys(described.sample_scene.tolist())]
    one = samples_of_scenes(described, "all", [names[1]])
    assert set(described.sample_scene[one]) == {described.sample_scene[one[0]]}
    assert len(samples_of_scenes(described, "all", fraction=0.01)) == len(one)
    np.testing.assert_array_equal(samples_of_scenes(described, "all"), samples_of_split(described, "all"))
    for wrong, message in (({"scenes": ["scene-9999"]}, "no scene 'scene-9999'"), ({"fraction": 0.0}, "above 0")):
        with pytest.raises(UserError, match=message):
            samples_of_scenes(described, "all", **wrong)


def test_the_shown_score_separates_found_objects_from_false_boxes():
    objects = boxes_of(4, center=np.arange(4)[:, None] * [10.0, 0.0, 0.0])
    false = boxes_of(6, center=np.arange(6)[:, None] * [1.0, 0.0, 0.0] + [0.0, 30.0, 0.0])
    score = np.concatenate([np.linspace(0.9, 0.6, 4), np.linspace(0.5, 0.1, 6)])
    boxes = type(objects).concatenate([replace(objects, num_points=np.full(4, -1)), false])
    truth = world_of(replace(objects, num_points=np.full(4, 5)))
    assert balanced_score(truth, Detections.of(boxes, score)) == pytest.approx(0.6)
    assert balanced_score(truth, Detections.concatenate([])) == 1.0
