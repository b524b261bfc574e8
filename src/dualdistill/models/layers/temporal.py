"""An earlier BEV map seen from the current frame (docs/methods/bevdepth.md#warp)."""

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
    """Bilinear samples of `previous` where the cells of the current frame lay then; zero beyond the map. Runs
    in float32.

    Args:
        previous_from_current: Motion in the BEV plane; height, roll and pitch are left out.
        anchor: The point that stands for a cell. The released code takes its lower edge, which puts rotated
            maps up to half a cell off.
    """
    with torch.autocast(previous.device.type, enabled=False):
        inset = 0.5 if anchor == "center" else 0.0
        cells = torch.stack(
            torch.meshgrid(
                torch.arange(grid.width, device=previous.device) + inset,
                torch.arange(grid.height, device=previous.device) + inset,
                indexing="xy",
            ),
            dim=-1,
        )
        xy = cells * grid.cell + cells.new_tensor([grid.x_min, grid.y_min])
        motion = previous_from_current.float()
        xy_then = torch.einsum("bij,yxj->byxi", motion[:, :2, :2], xy) + motion[:, None, None, :2, 3]
        index = grid.coordinates(xy_then) - inset  # integers at the anchors
        last = index.new_tensor([grid.width - 1, grid.height - 1])
        return F.grid_sample(
            previous.float(), 2 * index / last - 1, mode="bilinear", padding_mode="zeros", align_corners=True
        )
