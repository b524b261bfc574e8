"""Adversarial training in one loss: a discriminator separates two detectors' maps, reversed gradients oppose it.

Source: docs/methods/x3kd.md#adversarial-training. One optimiser steps both, with no alternation.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def reverse_gradient(features: Float[Tensor, "*shape"], strength: float = 1.0) -> Float[Tensor, "*shape"]:
    """The same numbers; the gradient that comes back is multiplied by -`strength`."""
    same = features.view_as(features)
    if same.requires_grad:
        same.register_hook(lambda gradient: -strength * gradient)
    return same


class Discriminator(nn.Module):
    """Logits of "from the teacher", one a patch of 8x8 cells. No batch norm: its statistics would reveal the source."""

    def __init__(self, in_channels: int, channels: tuple[int, int, int] = (256, 128, 64)):
        super().__init__()
        widths = (in_channels, *channels)
        layers: list[nn.Module] = []
        for before, width in zip(widths, channels, strict=False):
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 3, padding=1))

    def forward(self, features: Float[Tensor, "batch chan y x"]) -> Float[Tensor, "batch 1 _ _"]:
        return self.layers(features)


def adversarial_loss(
    teacher_logits: Float[Tensor, "batch 1 y x"], student_logits: Float[Tensor, "batch 1 y x"]
) -> Float[Tensor, ""]:
    """Binary cross entropy of a discriminator's logits, half on each side; ln 2 for one that cannot separate them."""
    teacher = F.binary_cross_entropy_with_logits(teacher_logits, torch.ones_like(teacher_logits))
    student = F.binary_cross_entropy_with_logits(student_logits, torch.zeros_like(student_logits))
    return (teacher + student) / 2


@torch.no_grad()
def accuracy(
    teacher_logits: Float[Tensor, "batch 1 y x"], student_logits: Float[Tensor, "batch 1 y x"]
) -> Float[Tensor, ""]:
    """Share of patches that the discriminator classifies correctly."""
    return ((teacher_logits > 0).float().mean() + (student_logits <= 0).float().mean()) / 2
