"""`lift_splat_pool` as two Triton kernels, for GPUs.

Opt-in: nothing calls it by itself. Its results are tested in Triton's interpreter on a CPU; it has not been timed on a
GPU, so that the bag sum, which runs there too, stays the default.

Forward, a program a BEV cell reads the cell's points and writes the cell once. Backward, a program a pixel reads the
gradient of the cells its points fall into once, for the gradients of its context and of its depths. No atomics: sums
are taken in one order, and repeat to the bit.

Raises:
    ImportError: on import, without Triton.
"""

# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-def, misc"
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dualdistill.ops.bev_pool import PoolPlan

_AT_ONCE = 16
"""Points a program works on together."""


@triton.jit
def _sum_cells(depth, context, point, pixel, start, out, chan, CHAN: tl.constexpr, AT_ONCE: tl.constexpr):
    cell = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, CHAN)
    total = tl.zeros((CHAN,), dtype=tl.float32)
    first = tl.load(start + cell)
    last = tl.load(start + cell + 1)
    for k in range(first, last, AT_ONCE):
        entry = k + tl.arange(0, AT_ONCE)
        real = entry < last
        share = tl.load(depth + tl.load(point + entry, mask=real, other=0), mask=real, other=0.0).to(tl.float32)
        row = tl.load(pixel + entry, mask=real, other=0).to(tl.int64)
        both = real[:, None] & (c < chan)[None, :]
        values = tl.load(context + row[:, None] * chan + c[None, :], mask=both, other=0.0).to(tl.float32)
        total += tl.sum(share[:, None] * values, axis=0)
    tl.store(out + cell * chan + c, total, mask=c < chan)


@triton.jit
def _pull_pixels(
    depth, context, grad, cells, grad_depth, grad_context, depths, chan, CHAN: tl.constexpr, AT_ONCE: tl.constexpr
):
    pixel = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, CHAN)
    own = tl.load(context + pixel * chan + c, mask=c < chan, other=0.0).to(tl.float32)
    total = tl.zeros((CHAN,), dtype=tl.float32)
    for k in range(0, depths, AT_ONCE):
        bin = k + tl.arange(0, AT_ONCE)
        place = pixel * depths + bin
        cell = tl.load(cells + place, mask=bin < depths, other=-1).to(tl.int64)
        both = (cell >= 0)[:, None] & (c < chan)[None, :]
        pulled = tl.load(grad + cell[:, None] * chan + c[None, :], mask=both, other=0.0).to(tl.float32)
        share = tl.load(depth + place, mask=cell >= 0, other=0.0).to(tl.float32)
        total += tl.sum(share[:, None] * pulled, axis=0)
        tl.store(grad_depth + place, tl.sum(pulled * own[None, :], axis=1), mask=bin < depths)
    tl.store(grad_context + pixel * chan + c, total, mask=c < chan)


def triton_lift_splat_pool(
    depth: Float[Tensor, "images depth h w"], context: Float[Tensor, "images chan h w"], plan: PoolPlan
) -> Float[Tensor, "batch chan y x"]:
    """As `lift_splat_pool`: depth and context of one type, sums in float32. Differentiable once, in both."""
    return _LiftSplat.apply(depth, context, plan)


class _LiftSplat(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, depth: Tensor, context: Tensor, plan: PoolPlan) -> Tensor:
        depth_rows, context_rows = _rows(depth), _rows(context)
        batch, height, width = plan.shape
        chan = context.shape[1]
        out = context_rows.new_empty(batch * height * width, chan)
        ends = plan.cell_start.new_tensor([len(plan.point_by_cell)])
        start = torch.cat([plan.cell_start, ends])
        block = triton.next_power_of_2(chan)
        _sum_cells[(len(out),)](
            depth_rows,
            context_rows,
            plan.point_by_cell,
            plan.pixel_by_cell,
            start,
            out,
            chan,
            CHAN=block,
            AT_ONCE=_AT_ONCE,
        )
        ctx.save_for_backward(depth_rows, context_rows)
        ctx.plan = plan
        return out.view(batch, height, width, chan).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_map: Tensor) -> tuple[Tensor, Tensor, None]:
        depth, context = ctx.saved_tensors
        plan: PoolPlan = ctx.plan
        images, depths, height, width = plan.frustum_shape
        grad_depth, grad_context = torch.empty_like(depth), torch.empty_like(context)
        chan = context.shape[1]
        block = triton.next_power_of_2(chan)
        _pull_pixels[(len(context),)](
            depth,
            context,
            _rows(grad_map),
            _cell_of_point(plan),
            grad_depth,
            grad_context,
            depths,
            chan,
            CHAN=block,
            AT_ONCE=_AT_ONCE,
        )
        grad_depth = grad_depth.view(images, height, width, depths).permute(0, 3, 1, 2)
        return grad_depth, grad_context.view(images, height, width, chan).permute(0, 3, 1, 2), None


def _rows(maps: Float[Tensor, "images chan h w"]) -> Float[Tensor, "pixels chan"]:
    """One row a pixel, without gaps; free for channels-last maps."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).contiguous()


def _cell_of_point(plan: PoolPlan) -> Int[Tensor, "points"]:
    """The cell of each point (images, h, w, depth); -1 for those in none."""
    count = torch.diff(plan.cell_start, append=plan.cell_start.new_tensor([len(plan.point_by_cell)]))
    cell = torch.arange(len(count), device=count.device, dtype=torch.int32)
    cell = cell.repeat_interleave(count, output_size=len(plan.point_by_cell))
    images, depths, height, width = plan.frustum_shape
    nowhere = cell.new_full((images * depths * height * width,), -1)
    return nowhere.index_copy(0, plan.point_by_cell.long(), cell)
