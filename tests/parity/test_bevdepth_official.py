"""The official BEVDepth detector's parts against numbers of its released code.

Provenance: the .json files of golden/bevdepth (repository, commit, sizes).
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dualdistill.convert.students import our_name
from dualdistill.models.bevdepth import BevDepth, official_bevdepth
from dualdistill.models.layers.bev_encoder import ResNetEncoder
from dualdistill.models.layers.depth_net import calibration_vector, depth_bins, softmax_depth_loss
from dualdistill.structures import Batch, Cameras

GOLDEN = Path(__file__).parent / "golden" / "bevdepth"
TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def facts(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


class RecordedFeatures(nn.Module):
    """In the place of backbone and neck."""

    def __init__(self, features: Tensor):
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        return self.features


@pytest.fixture(scope="module")
def record() -> dict[str, Tensor]:
    return golden("depthnet_lift")


@pytest.fixture
def detector(record: dict[str, Tensor]) -> BevDepth:
    """Recorded weights up to the map; the fixture ran without dropout."""
    full = official_bevdepth(backbone="resnet18", frames=1, released=True)
    config = replace(
        full,
        image=replace(full.image, channels=8),
        lift=replace(full.lift, depth_step=4.0, context_channels=4, hidden_channels=8),
        bev=replace(full.bev, cell=3.2, widths=(8, 8, 8), neck_channels=8),
    )
    model = BevDepth(config)
    model.depth_net.pyramid.dropout.p = 0.0
    state = {}
    for name, tensor in record.items():
        if name.startswith("w."):
            ours = our_name(f"backbone.depth_net.{name.removeprefix('w.')}")
            assert ours is not None, name
            state[ours] = tensor.squeeze() if name.endswith("num_batches_tracked") else tensor
    assert state.keys() == {name for name in model.state_dict() if name.startswith("depth_net.")}
    model.load_state_dict(state, strict=False)
    model.image = RecordedFeatures(record["feat"].clone().requires_grad_())
    return model


@pytest.fixture(scope="module")
def batch(record: dict[str, Tensor]) -> Batch:
    cameras = Cameras(
        images=torch.zeros(2, 1, 6, 3, 64, 176, dtype=torch.uint8),
        intrinsics=record["intrin"][:, None, ..., :3, :3],
        augmented_from_image=record["ida"][:, None],
        bev_from_camera=record["bda"][:, None, None] @ record["sensor2ego"][:, None],
        previous_from_current=torch.eye(4).expand(2, 4, 4),
        frame_gap=torch.full((2,), 0.5),
    )
    return Batch(boxes=(), augmented_from_bev=record["bda"], meta=(), cameras=cameras)


def test_the_camera_vector_is_the_official_one(record, batch):
    cameras = batch.cameras
    vector = calibration_vector(
        cameras.intrinsics[:, 0],
        cameras.augmented_from_image[:, 0],
        cameras.bev_from_camera[:, 0],
        batch.augmented_from_bev,
    )
    assert_close(vector, record["mlp_input"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_depth_network_and_pooled_map_are_the_official_ones(record, batch, detector, mode):
    # after the map comes the encoder, which is not in this record
    detector.train(mode == "train")
    output = detector(batch)
    logits, context = record[f"{mode}.depthnet_out"].split([14, 4], dim=1)
    assert_close(output.camera.depth_logits.flatten(0, 1), logits, **TOLERANCE)
    assert_close(output.canvas, record[f"{mode}.bev"], **TOLERANCE)
    if mode == "eval":
        vector = detector.camera_vector(batch.cameras, batch.augmented_from_bev, 0)
        assert_close(detector.depth_net(record["feat"], vector)[1], context, **TOLERANCE)


def test_the_gradient_of_the_image_features_is_the_official_one(record, batch, detector):
    canvas = detector.train()(batch).canvas
    (grad,) = torch.autograd.grad((canvas * record["train.bev_grad_out"]).sum(), detector.image.features)
    assert_close(grad, record["train.grad_feat"], **TOLERANCE)


def test_bev_trunk_and_neck_are_the_official_ones():
    record = golden("encoder")
    encoder = ResNetEncoder(4, (4, 8, 16), 16)
    state = {}
    for name, tensor in record.items():
        if name.startswith(("trunk.", "neck.")):
            ours = our_name(f"head.{name}")
            assert ours is not None, name
            if tensor.shape[2:] == (1, 1) and "deblocks" in name:
                tensor = tensor.transpose(0, 1)
            tensor = tensor.squeeze() if name.endswith("num_batches_tracked") else tensor
            state[ours.removeprefix("encoder.")] = tensor
    encoder.load_state_dict(state)
    with torch.no_grad():
        stages, neck = encoder.eval()(record["x"])
    assert [stage.shape[-1] for stage in stages] == [12, 6, 3]
    assert_close(neck, record["neck_out"], rtol=1e-4, atol=1e-5)


def test_depth_bins_are_the_official_ones():
    record = golden("depth_labels")
    bins = depth_bins(record["depth_value"], first=2.0, step=0.5, count=112)
    assert bins.tolist() == record["depth_value_label"].tolist()


def test_depth_loss_and_its_gradient_are_the_official_ones():
    record, expected = golden("depth_labels"), facts("depth_labels")["scalars"]
    blocks = record["depth_maps"].unflatten(2, (-1, 16)).unflatten(1, (-1, 16)).transpose(2, 3).flatten(3)
    nearest = torch.where(blocks == 0, torch.inf, blocks).amin(dim=3)
    nearest = torch.where(nearest.isinf(), 0.0, nearest)
    bins = depth_bins(nearest, first=2.0, step=4.0, count=14)
    assert bins.tolist() == record["label"].tolist()
    assert (bins >= 0).sum() == expected["n_foreground"]
    probability = record["depth_pred"].clone().requires_grad_()
    loss = 3 * softmax_depth_loss(probability, bins)
    assert_close(loss.item(), expected["depth_loss"], rtol=1e-5, atol=0)
    loss.backward()
    assert_close(probability.grad, record["grad_depth_pred"], rtol=1e-3, atol=1e-5)
