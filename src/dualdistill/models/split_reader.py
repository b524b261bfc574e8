"""The original MVP's voxel reader: raw LiDAR points and points with class labels averaged apart
(docs/methods/mvp.md#split-reader).

It takes points of the `split` layout (16 channels: x, y, z, ten classes, score, flag, time lag; of raw points the
fourth is the intensity) and gives what a sparse voxel backbone starts from.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dualdistill.ops.voxelize import scatter_mean

IN_CHANNELS = 16
OUT_CHANNELS = 21
"""Raw: x, y, z, intensity, lag. Labelled: x, y, z, ten classes, score, lag, and the share of painted ones."""

_RAW, _LABELLED = slice(0, 5), slice(5, 21)


def split_kinds(points: Float[Tensor, "points 16"]) -> Float[Tensor, "points 22"]:
    """Each point in the columns of its kind, zeros in those of the other; last, whether it is raw."""
    flag, lag = points[:, 14:15], points[:, 15:16]
    is_raw, is_painted = (flag == 1).to(points.dtype), (flag == 0).to(points.dtype)
    raw = torch.cat([points[:, :4], lag], dim=1)
    labelled = torch.cat([points[:, :14], lag, is_painted], dim=1)
    return torch.cat([raw * is_raw, labelled * (1 - is_raw), is_raw], dim=1)


def split_means(
    points: Float[Tensor, "points 16"], voxel: Int[Tensor, "points"], num_voxels: int
) -> Float[Tensor, "voxels 21"]:
    """Features of each voxel: the mean of its raw points beside the mean of its labelled ones, zeros for a kind it
    has none of."""
    means = scatter_mean(split_kinds(points), voxel, num_voxels)
    share = means[:, 21:]  # of raw points
    raw = means[:, _RAW] / share.masked_fill(share == 0, 1)
    labelled = means[:, _LABELLED] / (1 - share).masked_fill(share == 1, 1)
    return torch.cat([raw, labelled], dim=1)
