"""The DualDistill student, from image features to the head's input, against numbers of the released code.

Provenance: golden/bevdepth/student.json (repository, commit, sizes). That network is small and begins at
image features: an image is stood for by the number of its frame.
"""

import json
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dualdistill.convert.students import our_name
from dualdistill.geometry.transforms import invert_rigid, rigid
from dualdistill.models.bevdepth import BevDepth, BevDepthConfig
from dualdistill.models.bevdepth_config import BevConfig, LiftConfig, TemporalConfig
from dualdistill.models.image_backbone import ImageConfig
from dualdistill.models.layers.depth_net import depth_bins, pose_vector, sigmoid_depth_loss
from dualdistill.structures import Batch, BevOutput, Cameras, Targets

GOLDEN = Path(__file__).parent / "golden" / "bevdepth"
TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


class RecordedFeatures(nn.Module):
    """In the place of backbone and neck: images of value k are answered with the features of frame k."""

    def __init__(self, *frames: Tensor):
        super().__init__()
        self.frames = frames

    def forward(self, images: Tensor) -> Tensor:
        return self.frames[int(images.flatten()[0])]


@pytest.fixture(scope="module")
def record() -> dict[str, Tensor]:
    return golden("student")


@pytest.fixture(scope="module")
def student(record: dict[str, Tensor]) -> BevDepth:
    config = BevDepthConfig(
        image=ImageConfig(backbone="resnet18", channels=8),
        lift=LiftConfig(depth_step=5.0, context_channels=4, hidden_channels=8, blocks=1, index="truncate"),
        temporal=TemporalConfig(blocks=1, anchor="lower_edge"),
        bev=BevConfig(cell=3.2, widths=(6, 8, 10), blocks=1, neck_channels=6),
    )
    model = BevDepth(config)
    model.image = RecordedFeatures(record["feat0"].flatten(0, 1), record["feat1"].flatten(0, 1))
    state = {}
    for name, tensor in golden("student_weights").items():
        ours = our_name(name.removeprefix("w."))
        assert ours is not None, name
        state[ours] = tensor.squeeze() if name.endswith("num_batches_tracked") else tensor
    assert state.keys() == {name for name in model.state_dict() if not name.startswith("head.")}
    model.load_state_dict(state, strict=False)
    return model.eval()


@pytest.fixture(scope="module")
def batch(record: dict[str, Tensor]) -> Batch:
    images = torch.arange(2, dtype=torch.uint8).view(1, 2, 1, 1, 1, 1).expand(1, 2, 6, 3, 64, 176)
    bev_from_camera = rigid(record["rots"], record["trans"])
    now, then = bev_from_camera[:, 0, 0], bev_from_camera[:, 1, 0]  # both to the current LiDAR frame
    cameras = Cameras(
        images=images,
        intrinsics=record["intrins"],
        augmented_from_image=rigid(record["post_rots"], record["post_trans"]),
        bev_from_camera=bev_from_camera,
        previous_from_current=now @ invert_rigid(then),
        frame_gap=torch.tensor([0.5]),
    )
    return Batch(boxes=(), augmented_from_bev=torch.eye(4)[None], meta=(), cameras=cameras, depth=record["depth_gt"])


@pytest.fixture(scope="module")
def output(student: BevDepth, batch: Batch) -> BevOutput:
    with torch.no_grad():
        return student(batch)


def test_the_camera_vector_is_the_released_one(record, batch):
    cameras = batch.cameras
    vector = pose_vector(cameras.intrinsics[:, 0], cameras.augmented_from_image[:, 0], cameras.bev_from_camera[:, 0])
    assert_close(vector, record["camera_vector"], rtol=1e-5, atol=1e-4)


def test_depth_logits_are_the_released_ones(record, output):
    assert_close(output.camera.depth_logits[0], record["depth_logits"], **TOLERANCE)


def test_the_map_of_one_frame_is_the_released_one_before_it_is_processed(record, student, batch):
    without = copy(student)
    without._modules = {**student._modules, "preprocess": None}
    with torch.no_grad():
        *_, current = without._frame_map(batch, batch.cameras, 0)
        *_, previous = without._frame_map(batch, batch.cameras, 1)
    assert_close(current, record["bev_frame0"], **TOLERANCE)
    assert_close(previous, record["bev_frame1"], **TOLERANCE)


def test_the_fused_map_is_the_released_one_and_its_second_half_the_warped_earlier_frame(record, output):
    assert_close(output.canvas, record["lss_feat"], **TOLERANCE)
    assert_close(output.canvas[:, 4:], record["aligned_frame1"], **TOLERANCE)


def test_the_encoder_stages_and_the_neck_are_the_released_ones(record, output):
    for level, stage in enumerate(output.stages):
        assert_close(stage, record[f"backbone{level}"], **TOLERANCE)
    assert_close(output.neck, record["neck"], **TOLERANCE)


def test_the_depth_loss_and_its_gradient_are_the_released_ones(record):
    expected = json.loads((GOLDEN / "student.json").read_text())["scalars"]["loss_depth"]
    logits = record["depth_logits"].clone().requires_grad_()
    bins = depth_bins(record["depth_gt"].flatten(0, 1), first=1.0, step=5.0, count=12)
    loss = 100 * sigmoid_depth_loss(logits, bins)
    assert_close(loss.item(), expected, rtol=1e-5, atol=0)
    loss.backward()
    assert_close(logits.grad, record["grad_depth_logits"], rtol=1e-4, atol=1e-7)


def test_the_detector_computes_that_depth_loss(student, batch, output):
    expected = json.loads((GOLDEN / "student.json").read_text())["scalars"]["loss_depth"]
    targets = Targets(boxes=batch.boxes, heatmap=output.predictions.heatmap, depth=batch.depth)
    assert_close(100 * student._depth_loss(output, targets).item(), expected, rtol=1e-4, atol=0)
