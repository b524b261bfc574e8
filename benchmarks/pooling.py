"""Lift-splat pooling: the bag sum beside the frustum tensors of the papers, at the size of BEVDepth-R50."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.floor import traffic_ms
from benchmarks.references.pooling import cumsum_pool, scatter_pool
from dualdistill.geometry.cameras import frustum, lift
from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.bev_pool import PlanCache, PoolPlan, lift_splat_pool, make_pool_plan, pool_cells
from dualdistill.report.timing import Row, Variant, measure

Z_RANGE = (-5.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of the problem; the defaults are those of the published R50 student."""

    cameras: int = 6
    feature: tuple[int, int] = (16, 44)
    stride: int = 16
    depths: int = 112
    channels: int = 80
    cell: float = 0.8
    """Metres, over ±51.2."""

    @property
    def grid(self) -> BevGrid:
        return BevGrid.around(51.2, self.cell)

    def __str__(self) -> str:
        height, width = self.feature
        cells = "x".join(map(str, self.grid.shape))
        return f"{self.cameras} cameras, {height}x{width}, D={self.depths}, C={self.channels}, {cells} cells"


def run(quick: bool) -> list[Row]:
    """Forward, forward + backward and the plan."""
    small = Size(feature=(8, 22), stride=32, depths=28, channels=32, cell=1.6)
    return pooling_rows(small if quick else Size(), repeats=5 if quick else 15)


def pooling_rows(size: Size, *, repeats: int) -> list[Row]:
    torch.manual_seed(0)
    setting = f"{size}, float32, {torch.get_num_threads()} threads"
    matrices = rig(size)
    points = lifted(size, matrices)
    plan = make_pool_plan(points, size.grid, Z_RANGE)
    cell = flat_cells(points, size.grid)
    images, (height, width) = size.cameras, size.feature
    depth = torch.randn(images, size.depths, height, width).softmax(dim=1)
    context = torch.randn(images, size.channels, height, width)
    upstream = torch.randn(*plan.shape[:1], size.channels, *plan.shape[1:])
    forms: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "cumulative sum trick (LSS)": lambda d, c: cumsum_pool(d, c, cell, plan.shape),
        "frustum + index_add (BEVDet)": lambda d, c: scatter_pool(d, c, cell, plan.shape),
        "bag sum": lambda d, c: lift_splat_pool(d, c, plan),
        "bag sum, channels-last": lambda d, c: lift_splat_pool(d, c, plan),
    }
    forward, both = [], []
    for name, form in forms.items():
        layout = torch.channels_last if "channels-last" in name else torch.contiguous_format
        leaves = tuple(x.clone(memory_format=layout).requires_grad_() for x in (depth, context))
        slow = max(1, repeats // 4) if "bag" not in name else None
        forward.append(Variant(name=name, run=_run(form, leaves), repeats=slow))
        gradient = upstream.contiguous(memory_format=layout)
        both.append(Variant(name=name, run=_run(form, leaves, gradient), repeats=slow))
    once = 4 * (depth.numel() + context.numel() + upstream.numel())
    twice, floor = traffic_ms(2 * once), "maps read and written once"
    return [
        *measure(f"pooling, forward ({setting})", forward, repeats=repeats, floor_ms=traffic_ms(once), floor=floor),
        *measure(f"pooling, forward + backward ({setting})", both, repeats=repeats, floor_ms=twice, floor=floor),
        *plan_rows(size, matrices, setting, repeats=repeats),
    ]


def plan_rows(size: Size, matrices: tuple[Tensor, ...], setting: str, *, repeats: int) -> list[Row]:
    """Making a plan, and finding one in the cache."""
    cache = PlanCache()

    def make() -> PoolPlan:
        return make_pool_plan(lifted(size, matrices), size.grid, Z_RANGE)

    def indices(plan: PoolPlan) -> tuple[Tensor, Tensor]:
        return plan.cell_start, plan.pixel_by_cell

    def sort() -> tuple[Tensor, Tensor]:
        cell = flat_cells(lifted(size, matrices), size.grid)
        kept = (cell >= 0).nonzero().squeeze(1)
        order = cell[kept].argsort(stable=True)
        count = torch.bincount(cell[kept], minlength=math.prod(size.grid.shape))
        area = math.prod(size.feature)
        pixel = kept[order] // (size.depths * area) * area + kept[order] % area
        by_cell_then_pixel = (cell[kept][order] * size.cameras * area + pixel).argsort(stable=True)
        return count.cumsum(0) - count, pixel[by_cell_then_pixel]

    return measure(
        f"pooling, index plan ({setting})",
        [
            Variant(name="sorting, in PyTorch", run=sort),
            Variant(name="made", run=lambda: indices(make())),
            Variant(name="found again", run=lambda: indices(cache.get(matrices, size, make))),
        ],
        repeats=repeats,
    )


def rig(size: Size) -> tuple[Tensor, Tensor, Tensor]:
    """Intrinsics, image augmentation and poses of cameras all around, tilted a little, as on nuScenes cars."""
    yaw = torch.arange(size.cameras) * (2 * math.pi / size.cameras)
    tilt = torch.deg2rad(torch.randn(size.cameras))
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    turn = torch.stack([yaw.cos(), -yaw.sin(), zero, yaw.sin(), yaw.cos(), zero, zero, zero, one], dim=1).view(-1, 3, 3)
    pitch = torch.stack([tilt.cos(), zero, tilt.sin(), zero, one, zero, -tilt.sin(), zero, tilt.cos()], dim=1)
    forward = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # optical axis to x
    pose = torch.eye(4).repeat(size.cameras, 1, 1)
    pose[:, :3, :3] = turn @ pitch.view(-1, 3, 3) @ forward
    pose[:, :3, 3] = torch.stack([0.9 + 0.7 * yaw.cos(), 0.5 * yaw.sin(), 1.5 * one], dim=1)
    height, width = (size.stride * side for side in size.feature)
    focal = 0.79 * width
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, 0.3 * height], [0, 0, 1]])
    return intrinsics.expand(1, size.cameras, 3, 3), torch.eye(4).expand(1, size.cameras, 4, 4), pose[None]


def lifted(size: Size, matrices: tuple[Tensor, ...]) -> Tensor:
    """The frustums' points: depths from 2 to 58 m."""
    height, width = size.feature
    depths = 2 + torch.arange(size.depths) * (56 / size.depths)
    image = (size.stride * height, size.stride * width)
    return lift(frustum(image, size.feature, depths), *matrices)


def flat_cells(points: Tensor, grid: BevGrid) -> Tensor:
    """Flat cell of each point (cam, depth, h, w), or -1, as the references take it."""
    return pool_cells(points, grid, Z_RANGE).flatten().long()


def _run(
    form: Callable[[Tensor, Tensor], Tensor], leaves: tuple[Tensor, ...], upstream: Tensor | None = None
) -> Callable[[], Any]:
    """Forward without gradient, or with `upstream` forward and backward."""

    def run() -> Any:
        if upstream is None:
            with torch.no_grad():
                return form(*leaves)
        for leaf in leaves:
            leaf.grad = None
        form(*leaves).backward(upstream)
        return tuple(leaf.grad for leaf in leaves)

    return run
