import importlib.util
import os
import subprocess
import sys

import pytest

CHECK = """
import torch
from torch.testing import assert_close
from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.bev_pool import lift_splat_pool, make_pool_plan
from dualdistill.ops.bev_pool_triton import triton_lift_splat_pool

torch.manual_seed(0)
grid = BevGrid(x_min=-4.0, y_min=-3.0, cell=1.0, width=5, height=3)
for spread, shape in ((2.5, (2, 2, 19, 3, 2)), (0.01, (1, 2, 5, 2, 3)), (1e6, (1, 1, 3, 2, 2)), (2.0, (1, 1, 1, 1, 1))):
    plan = make_pool_plan(spread * torch.randn(*shape, 3), grid, (-2.0, 2.0))
    images, depths, height, width = plan.frustum_shape
    for dtype, atol in ((torch.float32, 1e-5), (torch.bfloat16, 0.06)):
        depth = torch.rand(images, depths, height, width).softmax(dim=1).to(dtype).requires_grad_()
        context = torch.randn(images, 6, height, width).to(dtype).requires_grad_()
        ours, expected = triton_lift_splat_pool(depth, context, plan), lift_splat_pool(depth, context, plan)
        assert_close(ours, expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=atol)
        upstream = torch.randn_like(ours)
        grads = [torch.autograd.grad(pooled, (depth, context), upstream) for pooled in (ours, expected)]
        for one, other in zip(*grads):
            assert_close(one, other, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=atol)
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_in_the_interpreter_say_what_the_bag_sum_says_gradients_too():
    # a process of its own: whether kernels are interpreted is settled when Triton is imported
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
