"""Published states are written out here key by key (docs/methods/bevdepth.md#checkpoints), with shapes, apart from the
code's tables."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.convert.mapping import Renamed, in_new_boxes
from dualdistill.convert.students import check_geometry, convert_student, our_name, recognise
from dualdistill.geometry.cameras import frustum
from dualdistill.models.bevdepth import BevDepth, distill_bevdepth, official_bevdepth
from tests.convert.foreign import official_head_state
from tests.models.camera_batches import small


class State(dict[str, Tensor]):
    def conv(self, name: str, *shape: int, bias: bool = False) -> None:
        self[f"{name}.weight"] = torch.rand(*shape)
        if bias:
            self[f"{name}.bias"] = torch.rand(shape[0])

    def norm(self, name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            self[f"{name}.{part}"] = torch.rand(channels)
        self[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def block(self, name: str, before: int, width: int) -> None:
        for index, channels in ((1, before), (2, width)):
            self.conv(f"{name}.conv{index}", width, channels, 3, 3)
            self.norm(f"{name}.bn{index}", width)

    def borrowed(self, prefix: str, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            self[f"{prefix}.{name}"] = torch.rand(tensor.shape).to(tensor.dtype)


def bevdet_state(model: BevDepth) -> State:
    """DB-4D, R50."""
    state = State()
    state.borrowed("pts_bbox_head", official_head_state(model.head))
    state.borrowed("img_backbone", model.image.backbone.state_dict())
    state.conv("img_neck.lateral_convs.0.conv", 512, 1024, 1, 1, bias=True)
    state.conv("img_neck.lateral_convs.1.conv", 512, 2048, 1, 1, bias=True)
    state.conv("img_neck.fpn_convs.0.conv", 512, 512, 3, 3, bias=True)
    view = "img_view_transformer"
    state.conv(f"{view}.featnet", 64, 512, 1, 1, bias=True)
    state.conv(f"{view}.se.input_conv", 256, 512, 1, 1, bias=True)
    state.norm(f"{view}.se.fc.0", 33)
    state.conv(f"{view}.se.fc.1", 256, 33, bias=True)
    for index in range(3):
        state.block(f"{view}.extra_depthnet.layers.0.{index}", 256, 256)
    state.conv(f"{view}.extra_depthnet.layers.0.0.downsample", 256, 256, 3, 3, bias=True)
    state.conv(f"{view}.dcn.0", 256, 256, 3, 3, bias=True)
    state.conv(f"{view}.dcn.0.conv_offset", 27, 256, 3, 3, bias=True)
    state.norm(f"{view}.dcn.1", 256)
    state.conv(f"{view}.depthnet", 59, 256, 1, 1, bias=True)
    for index in range(2):
        state.block(f"pre_process_net.layers.0.{index}", 64, 64)
    state.conv("pre_process_net.layers.0.0.downsample", 64, 64, 3, 3, bias=True)
    for stage, (before, width) in enumerate([(128, 128), (128, 256), (256, 512)]):
        state.block(f"img_bev_encoder_backbone.layers.{stage}.0", before, width)
        state.conv(f"img_bev_encoder_backbone.layers.{stage}.0.downsample", width, before, 3, 3, bias=True)
        state.block(f"img_bev_encoder_backbone.layers.{stage}.1", width, width)
    neck = "img_bev_encoder_neck"
    state.conv(f"{neck}.conv.0", 512, 640, 3, 3)
    state.norm(f"{neck}.conv.1", 512)
    state.conv(f"{neck}.conv.3", 512, 512, 3, 3)
    state.norm(f"{neck}.conv.4", 512)
    state.conv(f"{neck}.up2.1", 256, 512, 3, 3)
    state.norm(f"{neck}.up2.2", 256)
    state.conv(f"{neck}.up2.4", 256, 256, 1, 1, bias=True)
    state.norm(f"{neck}.up2.5", 256)
    return state


def official_state(model: BevDepth) -> State:
    """OFF-2-DA, R50."""
    state = State()
    state.borrowed("head", official_head_state(model.head))
    state.borrowed("backbone.img_backbone", model.image.backbone.state_dict())
    shapes = [(128, 256, 4, 4), (128, 512, 2, 2), (1024, 128, 1, 1), (2048, 128, 2, 2)]
    for level, shape in enumerate(shapes):
        state.conv(f"backbone.img_neck.deblocks.{level}.0", *shape)
        state.norm(f"backbone.img_neck.deblocks.{level}.1", 128)
    net = "backbone.depth_net"
    state.conv(f"{net}.reduce_conv.0", 512, 512, 3, 3, bias=True)
    state.norm(f"{net}.reduce_conv.1", 512)
    state.conv(f"{net}.context_conv", 80, 512, 1, 1, bias=True)
    state.norm(f"{net}.bn", 27)
    for gate in ("depth", "context"):
        state.conv(f"{net}.{gate}_mlp.fc1", 512, 27, bias=True)
        state.conv(f"{net}.{gate}_mlp.fc2", 512, 512, bias=True)
        state.conv(f"{net}.{gate}_se.conv_reduce", 512, 512, 1, 1, bias=True)
        state.conv(f"{net}.{gate}_se.conv_expand", 512, 512, 1, 1, bias=True)
    for index in range(3):
        state.block(f"{net}.depth_conv.{index}", 512, 512)
    for branch, size in ((1, 1), (2, 3), (3, 3), (4, 3)):
        state.conv(f"{net}.depth_conv.3.aspp{branch}.atrous_conv", 512, 512, size, size)
        state.norm(f"{net}.depth_conv.3.aspp{branch}.bn", 512)
    state.conv(f"{net}.depth_conv.3.global_avg_pool.1", 512, 512, 1, 1)
    state.norm(f"{net}.depth_conv.3.global_avg_pool.2", 512)
    state.conv(f"{net}.depth_conv.3.conv1", 512, 2560, 1, 1)
    state.norm(f"{net}.depth_conv.3.bn1", 512)
    state.conv(f"{net}.depth_conv.4", 512, 128, 3, 3)
    state.conv(f"{net}.depth_conv.4.conv_offset", 18, 512, 3, 3, bias=True)
    state.conv(f"{net}.depth_conv.5", 112, 512, 1, 1, bias=True)
    refinement = "backbone.depth_aggregation_net"
    for name in ("reduce_conv.0", "conv.0", "conv.3"):
        state.conv(f"{refinement}.{name}", 80, 80, 3, 3)
    for name in ("reduce_conv.1", "conv.1", "conv.4"):
        state.norm(f"{refinement}.{name}", 80)
    state.conv(f"{refinement}.out_conv.0", 80, 80, 3, 3, bias=True)
    state.conv("head.trunk.conv1", 160, 160, 7, 7)
    state.norm("head.trunk.bn1", 160)
    for stage, (before, width) in enumerate([(160, 160), (160, 320), (320, 640)], start=1):
        state.block(f"head.trunk.layer{stage}.0", before, width)
        state.block(f"head.trunk.layer{stage}.1", width, width)
        if stage > 1:
            state.conv(f"head.trunk.layer{stage}.0.downsample.0", width, before, 1, 1)
            state.norm(f"head.trunk.layer{stage}.0.downsample.1", width)
    for level, shape in enumerate([(160, 64, 1, 1), (160, 64, 2, 2), (320, 64, 4, 4), (640, 64, 8, 8)]):
        state.conv(f"head.neck.deblocks.{level}.0", *shape)
        state.norm(f"head.neck.deblocks.{level}.1", 64)
    return state


@pytest.mark.parametrize(
    ("config", "published", "entries"),
    [
        (distill_bevdepth(released=True), bevdet_state, 811),
        (official_bevdepth(refine=True, released=True), official_state, 881),
    ],
    ids=["BEVDet", "official"],
)
def test_every_tensor_of_a_published_state_has_its_place(config, published, entries):
    with torch.device("meta"):
        model = BevDepth(config)
        state = published(model)
        assert len(state) == entries - 4  # and four constants of the geometry
        assert recognise(state) == config
        converted = convert_student(dict(state), None, None)
    assert converted.config == config
    assert [entry.key for entry in converted.mapping] == list(state)
    assert {entry.into for entry in converted.mapping} == model.state_dict().keys()


def test_a_tensor_of_no_known_part_has_no_name():
    assert our_name("lidar_encoder.weight") is None


def test_a_state_of_neither_family_is_refused():
    with pytest.raises(ValueError, match="neither the official"):
        recognise({"conv1.weight": torch.zeros(1)})


def test_the_frames_and_backbone_are_recognised():
    with torch.device("meta"):
        model = BevDepth(official_bevdepth(refine=True))
        state = official_state(model)
    one = {name: value for name, value in state.items() if "aggregation" not in name}
    one["head.trunk.conv1.weight"] = torch.zeros(160, 80, 7, 7)
    one["backbone.img_backbone.layer3.22.conv1.weight"] = torch.zeros(1)
    assert recognise(one) == official_bevdepth(backbone="resnet101", frames=1, released=True)


@pytest.mark.parametrize("kind", ["size", "first", "count", "frustum"])
def test_the_geometry_of_a_state_must_be_the_models_own(kind):
    config = small(distill_bevdepth())
    own = {
        "size": torch.tensor([3.2, 3.2, 20.0]),
        "first": torch.tensor([-49.6, -49.6, 0.0]),
        "count": torch.tensor([32.0, 32.0, 1.0]),
        "frustum": frustum((64, 192), (4, 12), config.lift.depths()),
    }[kind]
    check_geometry(config, kind, own)
    with pytest.raises(ValueError, match="geometry"):
        check_geometry(config, kind, own + 0.1)


def test_a_head_of_legacy_boxes_becomes_one_of_ours():
    student, neck = BevDepth(small(distill_bevdepth(frames=1))).eval(), torch.randn(1, 16, 8, 8)
    state = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with torch.no_grad():
        legacy = student.head(neck).regression
        student.load_state_dict(in_new_boxes(Renamed(state, [])).state)
        ours = student.head(neck).regression
    assert_close(ours[:, :, [3, 4]], legacy[:, :, [4, 3]])
    theta, yaw = torch.atan2(legacy[:, :, 6], legacy[:, :, 7]), torch.atan2(ours[:, :, 6], ours[:, :, 7])
    difference = yaw - (-theta - torch.pi / 2)
    assert_close(difference.cos(), torch.ones_like(difference), rtol=0, atol=1e-5)
    assert_close(ours[:, :, [0, 1, 2, 5, 8, 9]], legacy[:, :, [0, 1, 2, 5, 8, 9]])
