"""Every model of the zoo is the file of its card, and its name stands for it wherever weights are taken."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dualdistill import hub, zoo
from dualdistill.errors import UserError
from dualdistill.experiment.plain import override
from dualdistill.models.checkpoints import read_facts
from dualdistill.models.image_backbone import ImageConfig, ImageEncoder
from dualdistill.recipes.catalogue import find
from dualdistill.train.loaded_detector import LoadedDetector, weights_of
from dualdistill.train.trained_weights import (
    TrainedWeights,
    Wanted,
    evaluation_folder,
    find_label_encoder,
    find_teacher,
)

DETECTORS = [name for name, card in zoo.cards().items() if card.recipe]


def test_every_file_has_a_card_and_every_card_its_file():
    assert {file.stem for file in zoo.FOLDER.glob("*.safetensors")} == zoo.cards().keys()
    for name in zoo.cards():
        assert zoo.path(name) == zoo.path(f"zoo:{name}") == hub.resolve(f"zoo:{name}")


@pytest.mark.parametrize("name", DETECTORS)
def test_a_card_holds_what_the_weights_record(name):
    card, facts = zoo.card(name), read_facts(zoo.path(name))
    assert (facts["recipe"], facts["seed"]) == (card.recipe, card.seed)
    override(find(card.recipe).build(), list(card.settings))
    assert LoadedDetector.load(weights_of(Path(f"zoo:{name}"), "last")).facts["recipe"] == card.recipe


def test_weights_are_half_precision():
    for name in zoo.cards():
        kinds = {tensor.dtype for tensor in load_file(zoo.path(name)).values() if tensor.is_floating_point()}
        assert kinds == {torch.float16}


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="zoo:teacher-centerpoint"):
        weights_of(Path("zoo:teacher-centrepoint"), "last")


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    (tmp_path / "backbone.safetensors").write_bytes(b"something else")
    with pytest.raises(UserError, match="install dualdistill again"):
        zoo.path.__wrapped__("backbone")


def test_a_backbone_comes_from_the_zoo():
    encoder = ImageEncoder(ImageConfig(backbone="test_resnet", channels=8, stride=8, pretrained="zoo:backbone"))
    encoder.load_pretrained()
    stored = load_file(zoo.path("backbone"))
    for name, tensor in encoder.backbone.state_dict().items():
        torch.testing.assert_close(tensor, stored[f"image.backbone.{name}"].to(tensor.dtype))


def test_teacher_and_label_encoder_are_found_by_name_and_found_again(tmp_path):
    experiment = find("synthetic/labeldistill-centerpoint").build()
    data = {"root": str(tmp_path), "version": "v1.0-mini", "split": "mini_train"}
    wanted = Wanted(recipe="synthetic/teacher-centerpoint", settings=None, learner=experiment, data=data, out=tmp_path)
    teacher = find_teacher(Path("zoo:teacher-centerpoint"), wanted)
    encoder = find_label_encoder(Path("zoo:label-encoder-centerpoint"), wanted, teacher)
    for weights in (teacher, encoder):
        identity = weights.identity
        assert identity["path"].startswith("zoo:")
        assert identity["score"]["mAP"] == zoo.card(identity["path"]).mAP
        assert TrainedWeights.recall(identity).path == weights.path


def test_scores_of_a_zoo_model_are_not_written_into_the_package():
    assert zoo.FOLDER not in evaluation_folder(zoo.path("teacher-centerpoint")).resolve().parents
