"""Attention maps and difference terms of feature distillation: pure functions, float32 in, float32 out.

Spec dualdistill 3.1 and 3.2 (the same formulas as DistillBEV's, spec distillbev 5).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@torch.no_grad()
def spatial_attention(features: Float[Tensor, "batch chan y x"], temperature: float) -> Float[Tensor, "batch 1 y x"]:
    """Where a map is strong: softmax over cells of the mean magnitude over channels. Averages 1; no
    gradient."""
    batch, _, height, width = features.shape
    strength = features.abs().mean(dim=1).flatten(1) / temperature
    return strength.softmax(dim=1).view(batch, 1, height, width) * (height * width)


@torch.no_grad()
def channel_attention(features: Float[Tensor, "batch chan y x"], temperature: float) -> Float[Tensor, "batch chan 1 1"]:
    """Which channels are strong: softmax over channels of the mean magnitude over cells. Averages 1; no
    gradient."""
    strength = features.abs().mean(dim=(2, 3), keepdim=True) / temperature
    return strength.softmax(dim=1) * features.shape[1]


def weighted_squares(
    error: Float[Tensor, "batch chan y x"],
    cell_weight: Float[Tensor, "batch 1 y x"],
    channel_weight: Float[Tensor, "batch chan 1 1"] | None = None,
) -> Float[Tensor, ""]:
    """Sum of weighted squares over channels and cells, mean over the batch."""
    squares = error.square()
    if channel_weight is not None:
        squares = squares * channel_weight
    return (squares.sum(dim=1, keepdim=True) * cell_weight).sum() / len(error)


def map_difference(a: Float[Tensor, "batch 1 y x"], b: Float[Tensor, "batch 1 y x"]) -> Float[Tensor, ""]:
    """Sum of absolute differences over cells, mean over the batch."""
    return (a - b).abs().sum() / len(a)


def balanced_mean(error: Float[Tensor, "batch _ y x"], mask: Bool[Tensor, "batch 1 y x"]) -> Float[Tensor, ""]:
    """Half the mean over the cells of the mask, half that over the others; a half without cells is 0."""
    cells = error.mean(dim=1, keepdim=True)
    inside = (cells * mask).sum() / mask.sum().clamp(min=1)
    outside = (cells * ~mask).sum() / (~mask).sum().clamp(min=1)
    return (inside + outside) / 2
