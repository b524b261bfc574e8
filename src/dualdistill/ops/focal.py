"""CornerNet's focal loss of heat maps, for detection and for response distillation."""

import torch
from jaxtyping import Float
from torch import Tensor

PROBABILITY_FLOOR = 1e-4
"""Probabilities of a heat map are clamped to [this, 1 - this]."""


def probability(logits: Float[Tensor, "*cells"]) -> Float[Tensor, "*cells"]:
    """Float32 probabilities kept off 0 and 1: no gradient comes from a cell as sure as that."""
    return logits.float().sigmoid().clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)


def gaussian_focal(probability: Float[Tensor, "*cells"], target: Float[Tensor, "*cells"]) -> Float[Tensor, "*cells"]:
    """Focal loss of each cell: a positive only where the target is exactly 1, else a negative, and the lesser the
    higher its target (docs/methods/centerpoint.md#losses)."""
    positive = -probability.log() * (1 - probability) ** 2
    negative = -(1 - probability).log() * probability**2 * (1 - target) ** 4
    return torch.where(target == 1, positive, negative)
