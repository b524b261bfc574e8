"""`convert`: from a foreign file to weights that other verbs take."""

import json

import pytest
import torch

from dualdistill.commands.convert import convert_checkpoint, experiment_for
from dualdistill.commands.options.deployment import Convert
from dualdistill.convert.mapping import Conversion
from dualdistill.errors import UserError
from dualdistill.experiment.plain import from_plain
from dualdistill.models.bevdepth import official_bevdepth
from dualdistill.models.checkpoints import read_facts
from dualdistill.train.assemble import load_teacher
from dualdistill.train.loaded_detector import LoadedDetector
from dualdistill.train.trained_weights import TrainedWeights
from tests.convert.foreign import mmdet3d_pillars, tianweiy_pillars


@pytest.fixture
def teacher(tmp_path, console):
    path = tmp_path / "centerpoint.pth"
    torch.save({"state_dict": dict(mmdet3d_pillars()), "meta": {"mmdet3d_version": "0.17.2", "iter": 12}}, path)
    account = convert_checkpoint(console, Convert(path, tmp_path / "teacher.safetensors"))
    return tmp_path / "teacher.safetensors", account


def test_a_converted_teacher_is_taken_as_a_trained_one(teacher):
    path, account = teacher
    trained = LoadedDetector.load(path)
    assert trained.facts["role"] == "teacher"
    assert trained.facts["step"] == 12
    weights = TrainedWeights(path, read_facts(path))
    assert weights.identity["score"] is None
    load_teacher(trained.experiment, weights)
    assert [entry["key"] for entry in account["keys"]] == list(mmdet3d_pillars())
    json.dumps(account)


def test_its_score_is_found_beside_it_and_is_nobody_elses(teacher):
    path, _ = teacher
    for name, score in (("teacher", 0.5), ("other", 0.1)):
        folder = path.parent / "evaluation" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"mean_ap": score, "nd_score": score}))
    assert TrainedWeights(path, read_facts(path)).identity["score"] == {"mAP": 0.5, "NDS": 0.5}


def test_a_converted_file_asks_which_data_it_is_for(teacher):
    with pytest.raises(UserError, match="--data ROOT"):
        LoadedDetector.load(teacher[0]).index(None, None)


def test_what_the_user_says_of_the_boxes_must_not_contradict_the_file(tmp_path, console):
    torch.save({"state_dict": dict(mmdet3d_pillars()), "meta": {"mmdet3d_version": "0.17.2"}}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"contradicts the file.*0\.17\.2"):
        convert_checkpoint(console, Convert(tmp_path / "w.pth", tmp_path / "t.safetensors", "new"))
    with pytest.raises(UserError, match=r"ends in \.safetensors"):
        convert_checkpoint(console, Convert(tmp_path / "w.pth", tmp_path / "t.pth"))
    assert not (tmp_path / "t.safetensors").exists()


def test_the_account_is_printed_one_line_a_layer(tmp_path, console):
    torch.save(dict(tianweiy_pillars()), tmp_path / "w.pth")
    convert_checkpoint(console, Convert(tmp_path / "w.pth", tmp_path / "t.safetensors"))
    printed = console.file.getvalue()
    assert "bbox_head.shared_conv.0.bias" in printed
    assert "37 folded" in printed
    assert "head.tasks.5.heatmap.0.1.*" in printed


def test_a_students_experiment_is_the_full_size_recipe_with_its_frames_and_images():
    config = official_bevdepth(frames=1, released=True)
    conversion = Conversion(family="", config=config, state={}, mapping=(), boxes="new")
    experiment = experiment_for(conversion, {"backbone.frustum": torch.zeros(112, 32, 88, 4)})
    assert experiment.student == config
    assert (experiment.data.num_frames, experiment.data.image_size, experiment.data.bev_frame) == (
        1,
        (512, 1408),
        "ego",
    )


def test_a_teacher_of_virtual_points_asks_for_them(tmp_path, console):
    torch.save(dict(mmdet3d_pillars(columns=22)), tmp_path / "mvp.pth")
    convert_checkpoint(console, Convert(tmp_path / "mvp.pth", tmp_path / "t.safetensors", "legacy"))
    experiment = from_plain(read_facts(tmp_path / "t.safetensors")["experiment"])
    assert experiment.data.point_channels == 17
    assert experiment.data.virtual_points.ring_leak
