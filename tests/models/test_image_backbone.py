from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from dualdistill.errors import UserError
from dualdistill.models.checkpoints import save_weights
from dualdistill.models.image_backbone import ImageConfig, ImageEncoder

TINY = "test_resnet"


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv4_conv_small", "regnety_002"])
@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("neck", ["pyramid", "second"])
def test_any_backbone_gives_one_map_at_the_stride_asked_for(backbone, stride, neck):
    with torch.device("meta"):
        encoder = ImageEncoder(ImageConfig(backbone=backbone, channels=32, stride=stride, neck=neck))
        features = encoder(torch.zeros(6, 3, 64, 192, dtype=torch.uint8))
    assert features.shape == (6, 32, 64 // stride, 192 // stride)


def test_a_red_pixel_is_normalised_as_published():
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    rgb = ImageEncoder(ImageConfig(backbone=TINY)).normalised(red).flatten()
    assert_close(rgb[[0, 2]], torch.tensor([2.2489, -1.8044]), rtol=0, atol=1e-4)
    bgr = ImageEncoder(ImageConfig(backbone=TINY, channel_order="bgr")).normalised(red).flatten()
    assert_close(bgr[[0, 2]], torch.tensor([-2.1179, 2.6400]), rtol=0, atol=1e-4)


def test_a_frozen_stem_neither_learns_nor_moves_its_statistics():
    encoder = ImageEncoder(ImageConfig(backbone=TINY, channels=8, frozen_stem=True)).train()
    stem = torch.nn.ModuleList([encoder.backbone.conv1, encoder.backbone.bn1])
    before = {name: value.clone() for name, value in stem.state_dict().items()}
    encoder(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in stem.state_dict().items())
    assert all(p.grad is None for p in stem.parameters())
    assert all(p.grad is not None for p in encoder.backbone.layer1.parameters())
    assert encoder.backbone.layer1.training


def test_the_frozen_stem_of_resnet50_has_9536_parameters():
    with torch.device("meta"):
        encoder = ImageEncoder(ImageConfig(frozen_stem=True))
    assert sum(p.numel() for p in encoder.parameters() if not p.requires_grad) == 9_536


def test_recomputing_activations_changes_no_gradient():
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    plain = ImageEncoder(ImageConfig(backbone=TINY, channels=8))
    thrifty = ImageEncoder(ImageConfig(backbone=TINY, channels=8, checkpointing=True))
    thrifty.load_state_dict(plain.state_dict())
    for encoder in (plain, thrifty):
        encoder(images).square().sum().backward()
    for (name, expected), (_, found) in zip(plain.named_parameters(), thrifty.named_parameters(), strict=True):
        assert_close(found.grad, expected.grad, msg=lambda text, name=name: f"{name}: {text}")


# ----------------------------------------------------------------------------------------- pretrained weights


@pytest.fixture
def donor() -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in timm.create_model(TINY, num_classes=10).state_dict().items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_a_local_file(donor, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(donor, path)
    else:
        torch.save(donor, path)
    encoder = ImageEncoder(ImageConfig(backbone=TINY, pretrained=str(path)))
    assert not torch.equal(encoder.backbone.layer4[0].conv1.weight, donor["layer4.0.conv1.weight"])
    encoder.load_pretrained()
    for name, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, donor[name]), name


def test_levels_that_are_flattened_by_timm_get_their_weights_too(tmp_path):
    donor = timm.create_model("regnety_002").state_dict()
    save_file(donor, tmp_path / "weights.safetensors")
    encoder = ImageEncoder(ImageConfig(backbone="regnety_002", pretrained=str(tmp_path / "weights.safetensors")))
    encoder.load_pretrained()
    assert torch.equal(encoder.backbone.stem.conv.weight, donor["stem.conv.weight"])


def test_the_image_backbone_of_a_trained_student_serves_as_pretrained_weights(tmp_path):
    torch.manual_seed(0)
    donor = ImageEncoder(ImageConfig(backbone=TINY))
    student = torch.nn.ModuleDict({"image": donor, "head": torch.nn.Linear(2, 2)})
    save_weights(tmp_path / "student.safetensors", student, {"role": "student"})
    encoder = ImageEncoder(ImageConfig(backbone=TINY, pretrained=str(tmp_path / "student.safetensors")))
    encoder.load_pretrained()
    expected = donor.backbone.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in encoder.backbone.state_dict().items())
    other = ImageEncoder(ImageConfig(backbone="regnety_002", pretrained=str(tmp_path / "student.safetensors")))
    with pytest.raises(UserError, match="is no 'regnety_002'"):
        other.load_pretrained()


def test_without_pretrained_weights_loading_changes_nothing():
    encoder = ImageEncoder(ImageConfig(backbone=TINY))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.load_pretrained()
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_a_missing_file_is_named(tmp_path):
    encoder = ImageEncoder(ImageConfig(backbone=TINY, pretrained=str(tmp_path / "nothing.pth")))
    with pytest.raises(UserError, match=r"no file .*nothing\.pth"):
        encoder.load_pretrained()


def test_weights_of_another_network_are_refused_not_half_loaded(donor, tmp_path):
    del donor["layer4.0.conv1.weight"]
    save_file(donor, tmp_path / "weights.safetensors")
    encoder = ImageEncoder(ImageConfig(backbone=TINY, pretrained=str(tmp_path / "weights.safetensors")))
    with pytest.raises(UserError, match=r"first is 'layer4\.0\.conv1\.weight'"):
        encoder.load_pretrained()


class Stranger:
    """Anything a pickle could bring along."""


def test_nothing_is_unpickled(tmp_path: Path):
    torch.save({"state_dict": Stranger()}, tmp_path / "weights.pth")
    encoder = ImageEncoder(ImageConfig(backbone=TINY, pretrained=str(tmp_path / "weights.pth")))
    with pytest.raises(UserError, match="not a safetensors or weights-only PyTorch file"):
        encoder.load_pretrained()


def test_offline_the_error_says_which_file_to_give(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    encoder = ImageEncoder(ImageConfig(backbone=TINY, pretrained="hub"))
    with pytest.raises(UserError, match=f"image.pretrained=PATH/{TINY}.safetensors"):
        encoder.load_pretrained()


# ----------------------------------------------------------------------------------------------------- errors


def test_an_unknown_backbone_is_the_users_mistake():
    with pytest.raises(UserError, match="no backbone 'resnet51'"):
        ImageEncoder(ImageConfig(backbone="resnet51"))


def test_images_whose_levels_do_not_meet_are_the_users_mistake():
    encoder = ImageEncoder(ImageConfig(backbone=TINY, channels=8, neck="second"))
    with pytest.raises(UserError, match="multiples of 32"):
        encoder(torch.zeros(1, 3, 64, 176, dtype=torch.uint8))


def test_only_resnets_have_a_stem_to_freeze():
    with pytest.raises(ValueError, match="frozen_stem"):
        ImageEncoder(ImageConfig(backbone="regnety_002", frozen_stem=True))
    with pytest.raises(ValueError, match="multiple of 4"):
        ImageConfig(neck="second", channels=510)
