"""Columns of raw, painted and virtual points in one array (docs/methods/mvp.md#columns).

    distillbev:  x y z | intensity, -1 for virtual | ten classes | score | flag | time lag
    centerpoint: x y z | ten classes (raw: intensity, nine ones) | score | flag | time lag

Raw points have ones for classes and score. The flag is 1 for virtual points and 0 for all others.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dualdistill.data.virtual_points.complete import CompletedSweep
from dualdistill.data.virtual_points.masks import LABEL_CHANNELS

PointLayout = Literal["distillbev", "centerpoint"]

NO_INTENSITY = -1.0
"""Intensity of virtual points."""


def laid_out(
    points: Float[Tensor, "points 5"],
    completed: CompletedSweep,
    lag: float,
    layout: PointLayout,
    *,
    ring_leak: bool = False,
) -> Float[Tensor, "all_points chan"]:
    """Raw, painted and virtual points of one sweep, in this order, still in the sweep's own frame.

    Painted points are copies: the raw points stay.

    Args:
        points: x, y, z (metres), intensity, ring, from `read_points`.
        lag: Seconds before the key frame.
        ring_leak: Keep the ring index in the first class column of raw points, as the sweeps of the released
            DistillBEV do by accident (not its key frames).
    """
    ones = points.new_ones(len(points), LABEL_CHANNELS)
    if ring_leak:
        ones[:, 0] = points[:, 4]
    virtual, painted = completed.virtual, completed.painted
    if layout == "distillbev":
        raw = torch.cat([points[:, :4], ones], dim=1)
        no_intensity = virtual.new_full((len(virtual), 1), NO_INTENSITY)
        virtual = torch.cat([virtual[:, :3], no_intensity, virtual[:, 3:]], dim=1)
    else:
        raw = torch.cat([points[:, :4], ones[:, 1:]], dim=1)
        painted = torch.cat([painted[:, :3], painted[:, 4:]], dim=1)
    return torch.cat([_flagged(raw, 0.0, lag), _flagged(painted, 0.0, lag), _flagged(virtual, 1.0, lag)])


def _flagged(points: Float[Tensor, "points _"], flag: float, lag: float) -> Float[Tensor, "points chan"]:
    return torch.cat([points, points.new_tensor([[flag, lag]]).expand(len(points), 2)], dim=1)
