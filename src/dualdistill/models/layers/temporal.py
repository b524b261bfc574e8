"""Resampling of an earlier BEV map in the current frame (docs/methods/bevdepth.md#warp)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dualdistill.geometry.grid import BevGrid


def warp_previous(
    previous: Float[Tensor, "batch chan y x"],
    previous_from_current: Float[Tensor, "batch 4 4"],
    grid: BevGrid,
    anchor: Literal["center", "lower_edge"] = "center",
) -> Float[Tensor, "batch chan y x"]:
    """Bilinear samples of `previous` at the cells of the current frame; zero beyond the map. Runs in float32.

    Args:
        previous_from_current: Motion in the BEV plane; height, roll and pitch are left out.
        anchor: Point of a cell that is transformed. The released code takes its lower edge, which shifts rotated
            maps by up to half a cell.
    """
    with torch.autocast(previous.device.type, enabled=False):
        inset = 0.5 if anchor == "center" else 0.0
        x = (torch.arange(grid.width, device=previous.device) + inset) * grid.cell + grid.x_min
        y = (torch.arange(grid.height, device=previous.device) + inset) * grid.cell + grid.y_min
        xy = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        motion = previous_from_current.float()
        xy_then = torch.einsum("bij,yxj->byxi", motion[:, :2, :2], xy) + motion[:, None, None, :2, 3]
        column, row = (2 * (grid.coordinates(xy_then) - inset)).unbind(dim=-1)  # twice; integers at the anchors
        place = torch.stack([column / (grid.width - 1), row / (grid.height - 1)], dim=-1) - 1
        return F.grid_sample(previous.float(), place, mode="bilinear", padding_mode="zeros", align_corners=True)
