import pytest
import torch
from torch.testing import assert_close

from benchmarks.pooling import Z_RANGE, Size, flat_cells, lifted, pooling_rows, rig
from benchmarks.references.pooling import cumsum_pool, scatter_pool
from dualdistill.ops.bev_pool import lift_splat_pool, make_pool_plan

ODD = Size(cameras=3, feature=(5, 3), stride=7, depths=13, channels=4, cell=102.4 / 17)


@pytest.mark.parametrize("form", [cumsum_pool, scatter_pool])
@pytest.mark.parametrize("kind", ["as lifted", "nowhere", "one cell", "one point"])
def test_published_formulations_and_the_bag_sum_agree_gradients_too(form, kind):
    torch.manual_seed(0)
    points = lifted(ODD, rig(ODD))
    if kind != "as lifted":
        points = torch.full_like(points, 999.0 if kind != "one cell" else 0.5)
    if kind == "one point":
        points[0, 1, 2, 3, 1] = 0.5
    depth = torch.rand(3, 13, 5, 3).double().softmax(dim=1).requires_grad_()
    context = torch.randn(3, 4, 5, 3).double().requires_grad_()
    plan = make_pool_plan(points, ODD.grid, Z_RANGE)
    ours = lift_splat_pool(depth, context, plan)
    theirs = form(depth, context, flat_cells(points, ODD.grid), plan.shape)
    assert_close(theirs, ours)
    upstream = torch.randn_like(ours)
    expected = torch.autograd.grad(theirs, (depth, context), upstream)
    assert_close(torch.autograd.grad(ours, (depth, context), upstream), expected)


def test_the_benchmark_compares_equals():
    rows = pooling_rows(ODD, repeats=1)
    assert len(rows) == 5 + 5 + 3
    assert all(row.difference < 1e-5 for row in rows if row.difference is not None)
    assert sum(row.name.startswith("floor") for row in rows) == 2
