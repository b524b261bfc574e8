import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from dualdistill.geometry.cameras import bev_augmentation
from dualdistill.geometry.grid import BevGrid
from dualdistill.geometry.transforms import transform
from dualdistill.ops import bev_pool as room
from dualdistill.ops.bev_pool import bev_pool, lift_splat_pool, make_pool_plan, pool_cells

quick = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31 - 1)
GRID, Z_RANGE = BevGrid(x_min=-4.0, y_min=-3.0, cell=1.0, width=7, height=6), (-2.0, 2.0)
SHAPE = (2, GRID.height, GRID.width)
POINTS_SHAPE = (2, 3, 5, 4, 2)  # batch cam depth h w


def random_points(seed: int, spread: float = 2.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(*POINTS_SHAPE, 3, generator=generator)


def random_maps(seed: int, dtype: torch.dtype = torch.float32, channels: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    batch, cameras, depths, height, width = POINTS_SHAPE
    depth = torch.rand(batch * cameras, depths, height, width, generator=generator).softmax(dim=1)
    context = torch.randn(batch * cameras, channels, height, width, generator=generator)
    return depth.to(dtype).requires_grad_(), context.to(dtype).requires_grad_()


def pool_plainly(depth: Tensor, context: Tensor, points: Tensor, index="floor", grid=GRID) -> Tensor:
    """The definition: materialise the frustum, drop it into cells."""
    product = depth[:, None] * context[:, :, None]  # images chan depth h w
    features = product.permute(0, 2, 3, 4, 1).flatten(0, 3)
    cells = pool_cells(points, grid, Z_RANGE, index).flatten(0, 4)
    return bev_pool(features, cells, (len(points), grid.height, grid.width))


def pool_with_loops(features: Tensor, cells: Tensor, shape: tuple[int, int, int]) -> Tensor:
    batch, height, width = shape
    out = features.new_zeros(batch, features.shape[1], height, width)
    for feature, cell in zip(features, cells.tolist(), strict=True):
        if cell >= 0:
            out[cell // (height * width), :, cell // width % height, cell % width] += feature
    return out


def assert_same_pooling(points: Tensor, seed: int, index="floor") -> None:
    plan = make_pool_plan(points, GRID, Z_RANGE, index)
    fast, plain = random_maps(seed), random_maps(seed)
    pooled, expected = lift_splat_pool(*fast, plan), pool_plainly(*plain, points, index)
    assert_close(pooled, expected)
    upstream = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(seed))
    pooled.backward(upstream)
    expected.backward(upstream)
    for ours, theirs in zip(fast, plain, strict=True):
        assert_close(ours.grad, theirs.grad)


@quick
@given(seeds)
def test_pooling_is_what_the_slow_loop_says(seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    cells = torch.randint(-1, math.prod(SHAPE), (50,), generator=generator)
    assert_close(bev_pool(features, cells, SHAPE), pool_with_loops(features, cells, SHAPE))


def test_gradients_of_the_definition_are_right_and_dropped_points_have_none():
    cells = torch.tensor([0, 17, 17, -1, -1, -1])
    features = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: bev_pool(f, cells, SHAPE), features)
    bev_pool(features, cells, SHAPE).sum().backward()
    assert features.grad is not None
    assert features.grad.sum(dim=1).tolist() == [2, 2, 2, 0, 0, 0]


@quick
@given(seeds)
def test_the_map_holds_all_that_was_kept(seed):
    points, (depth, context) = random_points(seed), random_maps(seed)
    kept = (pool_cells(points, GRID, Z_RANGE) >= 0).flatten(0, 1)  # images depth h w
    pooled = lift_splat_pool(depth, context, make_pool_plan(points, GRID, Z_RANGE))
    expected = torch.einsum("ndhw,nchw->c", depth * kept, context)
    assert_close(pooled.sum(dim=(0, 2, 3)), expected, atol=1e-4, rtol=1e-4)


@quick
@given(seeds, st.sampled_from(["floor", "truncate"]))
def test_the_bag_and_the_definition_agree_in_values_and_gradients(seed, index):
    assert_same_pooling(random_points(seed), seed, index)


@pytest.mark.parametrize("at_once", [1, 1 << 20])
def test_how_many_columns_the_gradients_take_at_once_changes_nothing(at_once, monkeypatch):
    monkeypatch.setattr(room, "_RUNS_AT_ONCE", at_once)
    plan = make_pool_plan(random_points(11), GRID, Z_RANGE)
    images, width = POINTS_SHAPE[0] * POINTS_SHAPE[1], POINTS_SHAPE[-1]
    assert len(plan.columns) == (images * width if at_once == 1 else images)
    assert_same_pooling(random_points(11), seed=11)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_come_in_the_layout_of_their_maps(layout):
    plan = make_pool_plan(random_points(12), GRID, Z_RANGE)
    leaves = [m.detach().contiguous(memory_format=layout).requires_grad_() for m in random_maps(12)]
    for leaf, grad in zip(leaves, torch.autograd.grad(lift_splat_pool(*leaves, plan).sum(), leaves), strict=True):
        assert grad.stride() == leaf.stride()


def test_they_agree_when_all_points_fall_into_one_cell():
    assert_same_pooling(torch.full((*POINTS_SHAPE, 3), 0.3), seed=1)


def test_they_agree_when_one_point_is_all_there_is():
    points = torch.full((*POINTS_SHAPE, 3), 99.0)
    points[1, 2, 3, 1, 0] = 0.0
    assert_same_pooling(points, seed=2)


def test_nothing_in_range_is_an_empty_map_and_no_gradient():
    plan = make_pool_plan(torch.full((*POINTS_SHAPE, 3), 99.0), GRID, Z_RANGE)
    depth, context = random_maps(0)
    pooled = lift_splat_pool(depth, context, plan)
    assert torch.equal(pooled, torch.zeros(2, 6, *GRID.shape))
    pooled.sum().backward()
    assert depth.grad is not None
    assert context.grad is not None
    assert not depth.grad.any()
    assert not context.grad.any()


def test_gradients_of_the_bag_are_right():
    depth, context = random_maps(3, torch.float64, channels=2)
    plan = make_pool_plan(random_points(3), GRID, Z_RANGE)
    assert torch.autograd.gradcheck(lambda d, c: lift_splat_pool(d, c, plan), (depth, context))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_memory_layout_changes_nothing(layout):
    plan = make_pool_plan(random_points(4), GRID, Z_RANGE)
    depth, context = random_maps(4)
    expected = lift_splat_pool(depth, context, plan)
    laid_out = lift_splat_pool(depth.contiguous(memory_format=layout), context.contiguous(memory_format=layout), plan)
    assert torch.equal(laid_out, expected)
    assert laid_out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("frozen", ["depth", "context"])
def test_what_needs_no_gradient_gets_none(frozen):
    plan = make_pool_plan(random_points(5), GRID, Z_RANGE)
    depth, context = random_maps(5)
    still, moving = (depth, context) if frozen == "depth" else (context, depth)
    still.requires_grad_(False)
    lift_splat_pool(depth, context, plan).sum().backward()
    assert still.grad is None
    assert moving.grad is not None


def test_bfloat16_is_the_same_to_its_precision():
    points = random_points(6)
    plan = make_pool_plan(points, GRID, Z_RANGE)
    half, full = random_maps(6, torch.bfloat16), random_maps(6, torch.bfloat16)
    rounded = [m.detach().float().requires_grad_() for m in full]
    pooled, expected = lift_splat_pool(*half, plan), pool_plainly(*rounded, points)
    assert pooled.dtype == torch.bfloat16
    assert_close(pooled.float(), expected, atol=0.03, rtol=0.03)
    pooled.sum().backward()
    expected.sum().backward()
    for ours, theirs in zip(half, rounded, strict=True):
        assert ours.grad is not None
        assert ours.grad.dtype == torch.bfloat16
        assert_close(ours.grad.float(), theirs.grad, atol=0.05, rtol=0.05)


def test_under_autocast_mixed_types_meet_in_the_wider_one():
    plan = make_pool_plan(random_points(7), GRID, Z_RANGE)
    depth, context = random_maps(7)
    expected = lift_splat_pool(depth, context, plan)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lift_splat_pool(depth, context, plan), expected)
        mixed = lift_splat_pool(depth, context.bfloat16(), plan)
    assert mixed.dtype == torch.float32
    assert_close(mixed, expected, atol=0.02, rtol=0.02)
    mixed.sum().backward()
    assert context.grad is not None
    assert context.grad.isfinite().all()


def test_truncation_lets_in_one_more_cell_below_each_bound():
    at = torch.tensor([[-4.5, 0, 0], [0, -3.5, 0], [0, 0, -5.5], [-5.1, 0, 0], [0, 0, -6.1], [3.1, 0, 0], [0, 0, 2]])
    points = at.view(1, 1, len(at), 1, 1, 3)
    kept = {how: (pool_cells(points, GRID, Z_RANGE, how) >= 0).flatten() for how in ("floor", "truncate")}
    assert not kept["floor"].any()
    assert kept["truncate"].tolist() == [True, True, True, False, False, False, False]
    first, second, third = pool_cells(points, GRID, Z_RANGE, "truncate")[0, 0, :3, 0, 0].tolist()
    assert [divmod(cell, GRID.width) for cell in (first, second, third)] == [(3, 0), (0, 4), (3, 4)]


SQUARE = BevGrid.around(4.0, 1.0)


@pytest.mark.parametrize(
    ("world", "seen"),
    [
        (bev_augmentation(angle=0.0, scale=1.0, flip_x=True, flip_y=False), lambda m: m.flip(-1)),
        (bev_augmentation(angle=0.0, scale=1.0, flip_x=False, flip_y=True), lambda m: m.flip(-2)),
        (
            bev_augmentation(angle=torch.pi / 2, scale=1.0, flip_x=False, flip_y=False),
            lambda m: m.rot90(-1, (-2, -1)),
        ),
    ],
    ids=["mirror x", "mirror y", "quarter turn"],
)
def test_mirroring_or_turning_the_world_does_so_to_the_map(world, seen):
    points = random_points(8)
    points[..., :2] = points[..., :2].floor() + 0.5  # away from borders
    moved = transform(world, points.flatten(0, 4)).view_as(points)
    depth, context = random_maps(8)
    before = lift_splat_pool(depth, context, make_pool_plan(points, SQUARE, Z_RANGE))
    after = lift_splat_pool(depth, context, make_pool_plan(moved, SQUARE, Z_RANGE))
    assert_close(after, seen(before))


def test_the_order_of_cameras_does_not_matter():
    points, (depth, context) = random_points(9), random_maps(9)
    shuffle = torch.tensor([2, 0, 1])
    images = torch.cat([shuffle, 3 + shuffle])
    straight = lift_splat_pool(depth, context, make_pool_plan(points, GRID, Z_RANGE))
    shuffled = lift_splat_pool(depth[images], context[images], make_pool_plan(points[:, shuffle], GRID, Z_RANGE))
    assert_close(shuffled, straight)


def test_a_plan_refuses_maps_it_was_not_made_for():
    plan = make_pool_plan(random_points(0), GRID, Z_RANGE)
    depth, context = random_maps(0)
    with pytest.raises(ValueError, match="this plan pools 6 images of 5x4x2"):
        lift_splat_pool(depth[:, :4], context, plan)
    with pytest.raises(ValueError, match="got depth"):
        lift_splat_pool(depth[:3], context[:3], plan)


@pytest.mark.gpu
def test_a_device_pools_as_the_cpu_does():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    points, (depth, context) = random_points(10), random_maps(10)
    expected = lift_splat_pool(depth, context, make_pool_plan(points, GRID, Z_RANGE))
    there = [m.detach().cuda().requires_grad_() for m in (depth, context)]
    pooled = lift_splat_pool(*there, make_pool_plan(points.cuda(), GRID, Z_RANGE))
    assert_close(pooled.cpu(), expected)
    pooled.sum().backward()
    expected.sum().backward()
    assert_close(there[0].grad.cpu(), depth.grad)
    assert_close(there[1].grad.cpu(), context.grad)
