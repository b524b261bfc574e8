"""A frozen student answers as the live one does, folded, in another rig, and from files."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from dualdistill.deploy.freeze import FrozenStudent, SampledConv, rig_geometry
from dualdistill.deploy.graph import deployable, write_onnx
from dualdistill.deploy.runtime import OnnxRun, decode_boxes, frame_inputs, predictions_of
from dualdistill.errors import UserError
from dualdistill.models.bevdepth import BevDepth, official_bevdepth
from dualdistill.models.layers.depth_net import DeformableConv
from tests.models.camera_batches import camera_batch, small, students

LIFTS = ("official, two frames", "official, refined")
DEPLOYABLE = {name: config for name, config in students().items() if name not in LIFTS}
DEPLOYABLE["official, one frame, refined"] = small(official_bevdepth(frames=1, refine=True))

needs_onnx = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the extra [export] is not installed")


def trained(config):
    """A student whose norms and offsets have something to say."""
    student = BevDepth(config)
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        if hasattr(module, "offset"):
            nn.init.normal_(module.offset.weight, std=0.05)
    return student.eval()


def live(student, batch):
    with torch.no_grad():
        return student(batch).predictions


def frozen_run(student, batch, *, fixed, format):
    frozen = FrozenStudent(student, rig_geometry(student, batch) if fixed else None, format=format)

    def run(inputs):
        with torch.no_grad():
            return dict(zip(frozen.outputs, frozen(**inputs), strict=True))

    return run


def assert_same(one, other, tolerance=2e-5):
    torch.testing.assert_close(one.heatmap, other.heatmap, rtol=0, atol=tolerance)
    torch.testing.assert_close(one.regression, other.regression, rtol=0, atol=tolerance)


@pytest.mark.parametrize("format", ["torch", "onnx"])
@pytest.mark.parametrize("name", DEPLOYABLE)
def test_a_frozen_student_is_the_live_one(name, format):
    student = trained(DEPLOYABLE[name])
    batch = camera_batch(batch=1, frames=student.config.temporal.frames)
    expected = live(student, batch)
    predicted = predictions_of(frozen_run(student, batch, fixed=False, format=format), student, batch, any_rig=True)
    assert_same(predicted, expected)
    if student.config.temporal.warps:
        # A frozen rig is one rig: the earlier frame's poses, the car's motion taken out, are those of now.
        cameras = batch.cameras
        batch = replace(batch, cameras=replace(cameras, bev_from_camera=cameras.bev_from_camera[:, [0, 0]]))
        expected = live(student, batch)
    predicted = predictions_of(frozen_run(student, batch, fixed=True, format=format), student, batch, any_rig=False)
    assert_same(predicted, expected)


@pytest.mark.parametrize("size", [(1, 1), (4, 7)])
@pytest.mark.parametrize("modulated", [True, False])
def test_sampling_and_convolving_is_deformable_convolution(modulated, size):
    torch.manual_seed(0)
    conv = DeformableConv(8, 6, modulated=modulated, groups=2, bias=modulated)
    nn.init.normal_(conv.offset.weight, std=0.5)  # far out of the map, too
    x = torch.randn(2, 8, *size)
    with torch.no_grad():
        torch.testing.assert_close(SampledConv(conv)(x), conv(x), rtol=1e-4, atol=1e-4)


def test_boxes_are_read_as_the_student_reads_them():
    config = DEPLOYABLE["distill, two frames"]
    student = trained(replace(config, head=replace(config.head, score_threshold=0.01)))
    batch = camera_batch(batch=1)
    with torch.no_grad():
        output = student(batch)
    (expected,) = student.detect(output, batch)
    boxes = decode_boxes(student, output.predictions, batch)
    assert len(boxes) > 0
    torch.testing.assert_close(boxes.velocity, expected.velocity)
    torch.testing.assert_close(boxes.center, expected.center)


@pytest.mark.parametrize("name", ["distill, two frames", "official, one frame"])
def test_folding_leaves_no_norm_after_a_convolution_and_lower_precision_only_what_may_round(name):
    student = trained(DEPLOYABLE[name])
    batch = camera_batch(batch=1, frames=student.config.temporal.frames)
    said = live(student, batch)
    frozen = FrozenStudent(student)
    inputs = frame_inputs(student, batch, any_rig=True)
    folded = deployable(frozen, inputs)
    norms = folded.graph.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)
    assert all("vector_norm" in str(norm.args[1]) for norm in norms)  # of the camera vector: no convolution before it
    assert_same(predictions_of(folded, student, batch, any_rig=True), said)

    low = deployable(frozen, inputs, "bf16")
    state = low.graph.state_dict()
    assert {str(v.dtype) for k, v in state.items() if "offset" in k} == {"torch.float32"}
    assert any(v.dtype == torch.bfloat16 for v in state.values())
    rounded = predictions_of(low, student, batch, any_rig=True)
    assert rounded.heatmap.dtype == torch.float32
    assert_same(rounded, said, tolerance=0.03 * said.heatmap.abs().max().item())


@needs_onnx
@pytest.mark.slow
def test_an_onnx_file_that_takes_any_rig_is_right_for_another_one(tmp_path):
    student = trained(DEPLOYABLE["distill, one frame"])
    batch = camera_batch(batch=1, frames=1)
    write_onnx(
        tmp_path / "model.onnx",
        deployable(FrozenStudent(student, format="onnx"), frame_inputs(student, batch, any_rig=True)),
    )
    moved = batch.cameras.bev_from_camera.clone()
    moved[..., 0, 3] += 4.0
    other = replace(batch, cameras=replace(batch.cameras, bev_from_camera=moved))
    said = live(student, other)
    assert_same(predictions_of(OnnxRun(tmp_path / "model.onnx"), student, other, any_rig=True), said)
    assert (live(student, batch).heatmap - said.heatmap).abs().max() > 1e-3


def test_a_student_that_lifts_its_earlier_frame_is_refused():
    with pytest.raises(UserError, match=r"temporal\.fusion=warp"):
        FrozenStudent(BevDepth(students()["official, two frames"]))


def test_cameras_that_see_nothing_of_the_map_are_an_error():
    student = BevDepth(DEPLOYABLE["distill, one frame"])
    batch = camera_batch(batch=1, frames=1)
    far = batch.cameras.bev_from_camera.clone()
    far[..., 0, 3] += 1e4
    with pytest.raises(UserError, match="lies on the map"):
        rig_geometry(student, replace(batch, cameras=replace(batch.cameras, bev_from_camera=far)))
    with pytest.raises(ValueError, match="one sample"):
        rig_geometry(student, camera_batch(batch=2, frames=1))
