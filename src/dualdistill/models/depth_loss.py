"""Supervision of the depth distribution by LiDAR (docs/methods/bevdepth.md#depth-losses)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dualdistill.ops.processes import mean_count

EMPTY = -1
"""Bin of a cell without a usable depth."""


def depth_bins(depth: Float[Tensor, "*cells"], *, first: float, step: float, count: int) -> Int[Tensor, "*cells"]:
    """Bin of each depth, metres; bin k starts at `first + k * step`. `EMPTY` below the first and past the last bin.

    The released code one-hot encodes one bin more, which starts a step before `first`, and drops it: the same.
    """
    bins = ((depth - (first - step)) / step).floor() - 1
    return torch.where((bins >= 0) & (bins < count), bins, EMPTY).long()


def sigmoid_depth_loss(logits: Float[Tensor, "images depth h w"], bins: Int[Tensor, "images h w"]) -> Float[Tensor, ""]:
    """Binary cross entropy of each bin on its own, in float32 (BEVDet code base).

    Mean over *all* elements, cells without a depth included, which count zero: a much smaller number than it looks.
    """
    with torch.autocast(logits.device.type, enabled=False):
        target, known = _one_hot(bins, logits.shape[1])
        loss = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
        return (loss * known).mean()


def softmax_depth_loss(
    probability: Float[Tensor, "images depth h w"], bins: Int[Tensor, "images h w"]
) -> Float[Tensor, ""]:
    """Binary cross entropy of the softmax, summed over bins, averaged over cells with a depth, in float32
    (official; in distributed training over those of the whole batch)."""
    with torch.autocast(probability.device.type, enabled=False):
        target, known = _one_hot(bins, probability.shape[1])
        probability = probability.float()
        finite = probability.isfinite()  # elsewhere the loss is NaN; PyTorch's function would end the process
        loss = F.binary_cross_entropy(probability.where(finite, 0.5), target, reduction="none").where(finite, torch.nan)
        return (loss * known).sum() / mean_count(known.sum(), at_least=1.0)


def _one_hot(
    bins: Int[Tensor, "images h w"], count: int
) -> tuple[Float[Tensor, "images depth h w"], Float[Tensor, "images 1 h w"]]:
    known = (bins != EMPTY).unsqueeze(1)
    target = bins.unsqueeze(1) == torch.arange(count, device=bins.device)[:, None, None]
    return target.float(), known.float()
