"""CenterPoint checkpoints of the official code bases, and what their numbers mean here.

The state dicts are written out in `foreign`; what the networks compute is checked against the same
layers written out with `torch.nn.functional`, by the foreign names.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from dualdistill.convert.checkpoint_file import convert
from dualdistill.errors import UserError
from dualdistill.geometry.grid import BevGrid
from dualdistill.models.centerpoint import CenterPoint, CenterPointConfig
from dualdistill.models.pillars import decorate
from dualdistill.ops.voxelize import dynamic_voxelize
from dualdistill.structures import Points
from tests.convert.foreign import BRANCHES, FULL, mmdet3d_pillars, tianweiy_pillars

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def network(conversion) -> CenterPoint:
    model = CenterPoint(conversion.config).eval()
    model.load_state_dict(conversion.state)
    return model


def normed(state: dict[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *parts, eps=eps).relu()


def original_bev(state: dict[str, Tensor], canvas: Tensor) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Neck and head of the original CenterPoint, read by its own names."""
    stages, x = [], canvas
    for stage, extra in enumerate((3, 5, 5)):
        for layer in range(extra + 1):
            weight = state[f"neck.blocks.{stage}.{3 * layer + 1}.weight"]
            x = F.conv2d(x, weight, stride=2 if layer == 0 else 1, padding=1)
            x = normed(state, f"neck.blocks.{stage}.{3 * layer + 2}", x, 1e-3)
        stages.append(x)
    weights = [state[f"neck.deblocks.{level}.0.weight"] for level in range(3)]
    resized = [
        F.conv2d(stages[0], weights[0], stride=2),
        F.conv2d(stages[1], weights[1]),
        F.conv_transpose2d(stages[2], weights[2], stride=2),
    ]
    neck = torch.cat([normed(state, f"neck.deblocks.{i}.1", x, 1e-3) for i, x in enumerate(resized)], dim=1)

    def biased(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    head = "bbox_head"
    shared = normed(state, f"{head}.shared_conv.1", biased(f"{head}.shared_conv.0", neck), 1e-5)
    answers = []
    for task in range(6):
        answer = {}
        for branch in (*BRANCHES, "hm"):
            name = f"{head}.tasks.{task}.{branch}"
            answer[branch] = biased(f"{name}.3", normed(state, f"{name}.1", biased(f"{name}.0", shared), 1e-5))
        answers.append(answer)
    return neck, answers


def as_mmdet3d(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same network by mmdetection3d's names, from rule 1 of section 17.3; it has no bias before a norm, so the
    state must not have any either."""
    renamed = {}
    for name, tensor in state.items():
        parts = name.split(".")
        match parts:
            case ["reader", *rest]:
                renamed[".".join(["pts_voxel_encoder", *rest])] = tensor
            case ["neck", "blocks", stage, index, last]:
                renamed[f"pts_backbone.blocks.{stage}.{int(index) - 1}.{last}"] = tensor
            case ["neck", *rest]:
                renamed[".".join(["pts_neck", *rest])] = tensor
            case ["bbox_head", "shared_conv", layer, last]:
                renamed[f"pts_bbox_head.shared_conv.{'conv' if layer == '0' else 'bn'}.{last}"] = tensor
            case ["bbox_head", "tasks", task, branch, layer, last]:
                at = {"0": "0.conv", "1": "0.bn", "3": "1"}[layer]
                branch = "heatmap" if branch == "hm" else branch
                renamed[f"pts_bbox_head.task_heads.{task}.{branch}.{at}.{last}"] = tensor
    return renamed


def biases_before_norms(state: dict[str, Tensor]) -> list[str]:
    return [name for name in state if name.startswith("bbox_head.") and name.endswith(".0.bias")]


# Key tables


def test_the_dynamic_pillar_teacher_is_the_published_one_to_the_last_parameter():
    conversion = convert(mmdet3d_pillars(FULL), "legacy")
    assert conversion.config == CenterPointConfig()
    assert len(conversion.mapping) == 414
    parameters = sum(p.numel() for p in network(conversion).parameters())
    assert parameters == 5_982_790
    assert conversion.notes == ()


def test_the_teacher_with_virtual_points_is_the_published_one_to_the_last_parameter():
    conversion = convert(mmdet3d_pillars(FULL, columns=22), "legacy")
    assert conversion.config == CenterPointConfig(point_channels=17)
    assert sum(p.numel() for p in network(conversion).parameters()) == 5_983_558


def test_the_original_pillar_model_has_two_point_layers_and_its_biases_go_into_norms():
    state = tianweiy_pillars(FULL)
    assert len(state) == 457
    assert sum(t.numel() for n, t in state.items() if "running" not in n and "num_batches" not in n) == 5_988_998
    conversion = convert(state)
    assert conversion.config == CenterPointConfig(pillar_channels=(32, 64), pillar_points=20)
    fates = {entry.key: entry.fate for entry in conversion.mapping}
    assert [key for key, fate in fates.items() if fate == "folded"] == biases_before_norms(state)
    assert len(biases_before_norms(state)) == 37


@pytest.mark.parametrize("state", [mmdet3d_pillars(), mmdet3d_pillars(hard=True), tianweiy_pillars()])
def test_every_key_is_accounted_for_once_and_in_order(state):
    conversion = convert(state, "legacy")
    assert [entry.key for entry in conversion.mapping] == list(state)
    assert {entry.into for entry in conversion.mapping} == conversion.state.keys()


# Numbers


def test_the_original_network_says_the_same_here_with_boxes_our_way():
    state, canvas = tianweiy_pillars(), torch.randn(1, 8, 32, 32)
    model = network(convert(state))
    with torch.no_grad():
        neck, answers = original_bev(state, canvas)
        ours = model.neck(model.backbone(canvas))
        said = model.head(ours)
    assert_close(ours, neck, **TOLERANCE)
    assert_close(said.heatmap, torch.cat([answer["hm"] for answer in answers], dim=1), **TOLERANCE)
    for task, answer in enumerate(answers):
        regression = said.regression[:, task]
        width, length, height = answer["dim"].unbind(dim=1)
        sin_theta, cos_theta = answer["rot"].unbind(dim=1)
        expected = [
            answer["reg"],
            answer["height"],
            torch.stack([length, width, height, -cos_theta, -sin_theta], dim=1),
            answer["vel"],
        ]
        assert_close(regression, torch.cat(expected, dim=1), **TOLERANCE)


def test_yaw_is_minus_theta_minus_a_quarter_turn():
    state, canvas = mmdet3d_pillars(), torch.randn(1, 8, 32, 32)
    legacy, new = (network(convert(state, boxes)) for boxes in ("legacy", "new"))
    with torch.no_grad():
        theta, yaw = (
            torch.atan2(*model.head(model.neck(model.backbone(canvas))).regression[:, :, 6:8].unbind(dim=2))
            for model in (new, legacy)
        )
    turned = yaw - (-theta - math.pi / 2)
    assert_close(turned.cos(), torch.ones_like(turned))


def test_one_network_by_the_names_of_both_code_bases_is_one_network_here():
    original = tianweiy_pillars()
    for name in biases_before_norms(original):
        original[name].zero_()
    theirs = {name: t for name, t in as_mmdet3d(original).items() if not name.endswith("conv.bias")}
    first, second = convert(original), convert(theirs, "legacy")
    assert first.config == second.config
    for name, tensor in first.state.items():
        assert_close(second.state[name], tensor, rtol=0, atol=0)


def test_folding_the_height_column_away_changes_nothing():
    state = mmdet3d_pillars(columns=11)
    conversion = convert(state)
    assert conversion.boxes == "new"
    grid = BevGrid.around(6.4, 0.2)
    points = torch.rand(600, 5) * torch.tensor([12.8, 12.8, 8.0, 255.0, 0.5]) - torch.tensor([6.4, 6.4, 5.0, 0, 0])
    pillars = dynamic_voxelize(points[:, :3], torch.zeros(600).long(), grid, (-5.0, 3.0), 1)
    described = decorate(points[pillars.kept], pillars, grid)
    above_middle = points[pillars.kept][:, 2:3] - (-1.0)
    name = "pts_voxel_encoder.pfn_layers.0"
    expected = torch.cat([described, above_middle], dim=1) @ state[f"{name}.0.weight"].T
    ours = network(conversion).encoder.layers[0](described)
    assert_close(ours, normed(state, f"{name}.1", expected, 1e-3), rtol=1e-4, atol=1e-4)
    assert conversion.config.point_channels == 5


def test_the_first_point_layer_of_hard_pillars_is_the_same_as_of_dynamic_ones():
    hard, dynamic = convert(mmdet3d_pillars(hard=True), "legacy"), convert(mmdet3d_pillars(), "legacy")
    for name, tensor in dynamic.state.items():
        assert torch.equal(hard.state[name], tensor)
    assert dynamic.notes == () or "hard" not in " ".join(dynamic.notes)


def test_the_empty_rows_of_hard_pillars_answer_here_as_there():
    state = mmdet3d_pillars(columns=11, hard=True)
    conversion = convert(state)
    assert (conversion.config.pillar_points, conversion.config.pillar_height) == (20, True)
    grid, name = BevGrid.around(6.4, 0.2), "pts_voxel_encoder.pfn_layers.0"
    features = torch.tensor([[0.1, 0.1, 0.5, 9.0, 0.0]]).repeat(21, 1)
    features[20:, 0] += 1.0  # twenty points fill one pillar, one point is alone in another
    pillars = dynamic_voxelize(features[:, :3], torch.zeros(21).long(), grid, (-5.0, 3.0), 1)
    described = torch.cat([decorate(features, pillars, grid), features[:, 2:3] + 1.0], dim=1)
    answers = normed(state, f"{name}.norm", described @ state[f"{name}.linear.weight"].T, 1e-3)
    empty = normed(state, f"{name}.norm", torch.zeros(1, 8), 1e-3)
    assert (empty > answers[20]).any()
    encoder = network(conversion).encoder
    encoder.grid = grid
    canvas = encoder(Points(features=features, sample=torch.zeros(21).long()), 1)
    assert_close(canvas[0, :, 32, 32], answers[0], rtol=1e-4, atol=1e-4)
    assert_close(canvas[0, :, 32, 37], torch.maximum(answers[20], empty[0]), rtol=1e-4, atol=1e-4)


# Refusals


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    ("state", "boxes", "message"),
    [
        (mmdet3d_pillars() | {"img_encoder.weight": torch.zeros(3)}, "new", r"unknown: img_encoder\.weight \(3,\)"),
        (tianweiy_pillars() | {"neck.extra.weight": torch.zeros(3)}, None, r"unknown: neck\.extra\.weight"),
        (without(mmdet3d_pillars(), "pts_neck.deblocks.1.0.weight"), "new", r"missing: neck\.deblocks\.1\.0\.weight"),
        (
            without(tianweiy_pillars(), "bbox_head.tasks.0.hm.3.bias"),
            None,
            r"missing: head\.tasks\.0\.heatmap\.1\.bias",
        ),
        (without(mmdet3d_pillars(), "pts_voxel_encoder.pfn_layers.0.0.weight"), "new", r"encoder\.layers\.0\.linear"),
        (without(mmdet3d_pillars(), "pts_bbox_head.shared_conv.conv.weight"), "new", r"head\.shared\.0\.weight"),
        (
            mmdet3d_pillars() | {"pts_bbox_head.task_heads.0.heatmap.1.bias": torch.zeros(2)},
            "new",
            r"expected \(1,\), came \(2,\) \(in the file: pts_bbox_head\.task_heads\.0\.heatmap\.1\.bias\)",
        ),
        (
            mmdet3d_pillars() | {"pts_voxel_encoder.pfn_layers.0.linear.weight": torch.zeros(8, 10)},
            "new",
            r"twice: pts_voxel_encoder\.pfn_layers\.0\.linear\.weight",
        ),
        (mmdet3d_pillars(), None, "--boxes legacy"),
        (mmdet3d_pillars(columns=11), "legacy", "new boxes, but --boxes legacy"),
        (mmdet3d_pillars(columns=9), "new", "reads 9 columns"),
        (tianweiy_pillars(columns=21), None, "16 channels"),
        (tianweiy_pillars(), "new", "legacy boxes, but --boxes new"),
        ({"layer1.0.weight": torch.zeros(3)}, None, r"No known family.*layer1\.0 \(1\)"),
    ],
)
def test_what_does_not_fit_exactly_is_refused_in_words(state, boxes, message):
    with pytest.raises(UserError, match=message):
        convert(dict(state), boxes)


def test_only_batch_counters_may_be_missing():
    state = mmdet3d_pillars()
    lean = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    found = convert(lean, "new")
    assert found.state.keys() == convert(state, "new").state.keys()
    assert int(found.state["head.shared.1.num_batches_tracked"]) == 0
