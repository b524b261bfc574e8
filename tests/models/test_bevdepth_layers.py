import math

import pytest
import torch
from torch.testing import assert_close

from dualdistill.geometry.grid import BevGrid
from dualdistill.geometry.transforms import rigid
from dualdistill.models.bevdepth import warp_previous
from dualdistill.models.layers.depth_net import (
    EMPTY,
    AtrousPyramid,
    DeformableConv,
    DepthRefinement,
    depth_bins,
    sigmoid_depth_loss,
    softmax_depth_loss,
)
from dualdistill.ops.blocks import residual_stage
from tests.geometry.reference import rotation_about_z

GRID = BevGrid.around(51.2, 0.8)


# ------------------------------------------------------------------------------------------------------- warp


def impulse() -> torch.Tensor:
    canvas = torch.zeros(1, 1, 128, 128)
    canvas[0, 0, 70, 80] = 1.0
    return canvas


def displaced(x: float, y: float) -> torch.Tensor:
    """`previous_from_current` of a car that was at (x, y) in the current frame."""
    return rigid(torch.eye(3), torch.tensor([-x, -y, 0.0]))[None]


@pytest.mark.parametrize("anchor", ["center", "lower_edge"])
def test_a_map_is_carried_along_by_whole_and_half_cells(anchor):
    warped = warp_previous(impulse(), displaced(1.6, 0.0), GRID, anchor)
    assert_close(warped[0, 0, 70, 82], torch.tensor(1.0), rtol=0, atol=1e-4)
    warped = warp_previous(impulse(), displaced(0.0, -0.4), GRID, anchor)
    assert_close(warped[0, 0, 69:71, 80], torch.tensor([0.5, 0.5]), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("anchor", "column"), [("lower_edge", 58), ("center", 57)])
def test_a_quarter_turn_lands_a_cell_off_unless_centres_are_followed(anchor, column):
    then_from_now = rigid(rotation_about_z(torch.tensor(-math.pi / 2)), torch.zeros(3))[None]
    warped = warp_previous(impulse(), then_from_now, GRID, anchor)
    assert_close(warped[0, 0, 80, column], torch.tensor(1.0), rtol=0, atol=1e-4)


def test_following_centres_a_quarter_turn_of_the_whole_map_is_exact():
    canvas = torch.rand(1, 2, 16, 16)
    then_from_now = rigid(rotation_about_z(torch.tensor(-math.pi / 2)), torch.zeros(3))[None]
    warped = warp_previous(canvas, then_from_now, BevGrid.around(8.0, 1.0))
    assert_close(warped, canvas.rot90(-1, (2, 3)), rtol=0, atol=1e-5)


def test_what_was_beyond_the_map_is_zero():
    assert not warp_previous(torch.ones(1, 1, 128, 128), displaced(200.0, 0.0), GRID).any()


def test_a_map_is_warped_in_float32_whatever_it_is_kept_in():
    canvas = torch.rand(1, 2, 128, 128).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        warped = warp_previous(canvas, displaced(0.3, 0.2), GRID)
    assert warped.dtype == torch.float32
    assert_close(warped, warp_previous(canvas.float(), displaced(0.3, 0.2), GRID))


# ----------------------------------------------------------------------------------------------- convolutions


@pytest.mark.parametrize("modulated", [False, True])
def test_a_deformable_convolution_starts_as_an_ordinary_one(modulated):
    groups = 1 if modulated else 4
    layer, x = DeformableConv(8, 8, modulated=modulated, groups=groups), torch.randn(2, 8, 5, 7)
    ordinary = torch.nn.functional.conv2d(x, layer.weight, padding=1, groups=groups)
    scale = 0.5 if modulated else 1.0  # all masks start at sigmoid(0)
    assert_close(layer(x), scale * ordinary, rtol=1e-4, atol=1e-5)


def test_offsets_are_row_then_column_tap_after_tap():
    layer, x = DeformableConv(1, 1, modulated=False, bias=False), torch.zeros(1, 1, 5, 5)
    x[0, 0, 3, 2] = 1.0
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 1, 1] = 1.0  # the middle tap, the fifth
        layer.offset.bias[8] = 1.0  # its offset along rows
    assert layer(x)[0, 0].nonzero().tolist() == [[2, 2]]


@pytest.mark.parametrize("modulated", [False, True])
def test_a_deformable_convolution_learns_where_to_look_even_under_autocast(modulated):
    layer, x = DeformableConv(4, 4, modulated=modulated), torch.randn(1, 4, 6, 6).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32
    y.square().sum().backward()
    assert (layer.offset.bias.grad != 0).all()


def test_a_stage_of_the_bevdet_code_base_has_a_shortcut_even_where_nothing_changes():
    plain = residual_stage(8, 8, blocks=2, shortcut="projection")
    always = residual_stage(8, 8, blocks=2)
    extra = sum(p.numel() for p in always.parameters()) - sum(p.numel() for p in plain.parameters())
    assert extra == 8 * 8 * 9 + 8


def test_the_pyramid_sees_the_whole_image():
    pyramid = AtrousPyramid(4).eval()
    x = torch.randn(1, 4, 64, 64, requires_grad=True)
    pyramid(x)[0, :, 0, 0].sum().backward()
    assert x.grad[0, :, 63, 63].any()  # out of reach of every dilation


def test_refinement_mixes_depths_and_columns_but_no_rows():
    refinement = DepthRefinement(2).eval()
    volume = torch.randn(1, 2, 6, 3, 5, requires_grad=True)
    refinement(volume)[0, :, 3, 1, 2].sum().backward()
    reached = volume.grad[0].abs().sum(dim=0) > 0  # depth h w
    assert not reached[:, [0, 2]].any()
    assert reached[:, 1].any(dim=1).all()
    assert reached[:, 1].any(dim=0).all()


# ------------------------------------------------------------------------------------------------------ depth


def test_bins_begin_at_the_first_and_end_after_the_last():
    depth = torch.tensor([0.0, 0.9, 1.0, 1.99, 2.0, 59.9, 60.0, 99.0])
    assert depth_bins(depth, first=1.0, step=1.0, count=59).tolist() == [-1, -1, 0, 0, 1, 58, -1, -1]
    depth = torch.tensor([0.0, 1.2, 1.7, 2.0, 7.9, 57.9, 58.0])
    assert depth_bins(depth, first=2.0, step=0.5, count=112).tolist() == [-1, -1, -1, 0, 11, 111, -1]


def test_losses_of_clueless_predictions_are_their_closed_forms():
    bins = torch.full((2, 4, 5), EMPTY)
    bins[0, 1, 2], bins[1, 3, 3], bins[1, 0, 0] = 3, 50, 0
    clueless = torch.zeros(2, 59, 4, 5)
    assert_close(100 * sigmoid_depth_loss(clueless, bins), torch.tensor(69.3147 * 3 / 40), rtol=1e-5, atol=0)
    uniform = torch.full((2, 112, 4, 5), 1 / 112)
    assert_close(3 * softmax_depth_loss(uniform, bins), torch.tensor(17.142064), rtol=1e-5, atol=0)


def test_the_worked_depth_loss():
    logits = torch.linspace(-3, 3, 236).view(1, 59, 2, 2)
    depth = torch.tensor([[[10.4, 0.0], [0.0, 1.0]]])
    loss = 100 * sigmoid_depth_loss(logits, depth_bins(depth, first=1.0, step=1.0, count=59))
    assert_close(loss, torch.tensor(52.6260), rtol=1e-5, atol=0)


@pytest.mark.parametrize("loss", [sigmoid_depth_loss, softmax_depth_loss])
def test_without_any_depth_there_is_nothing_to_learn(loss):
    prediction = torch.rand(1, 7, 2, 3, requires_grad=True)
    value = loss(prediction, torch.full((1, 2, 3), EMPTY))
    value.backward()
    assert value == 0
    assert not prediction.grad.any()


def test_a_sure_and_right_distribution_costs_next_to_nothing():
    bins = torch.randint(0, 7, (1, 2, 3))
    logits = torch.where(bins.unsqueeze(1) == torch.arange(7)[:, None, None], 30.0, -30.0)
    assert sigmoid_depth_loss(logits, bins) < 1e-6
    assert softmax_depth_loss(logits.softmax(dim=1), bins) < 1e-6
