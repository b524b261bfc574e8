"""The measure of likeness is one for maps that differ by a rotation, and small for maps that have nothing in common."""

import pytest
import torch

from studies.likeness import linear_cka


def test_maps_equal_up_to_rotation_factor_and_offset_are_alike_and_independent_ones_are_not():
    generator = torch.Generator().manual_seed(0)
    a, other = (torch.randn(5000, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))
    assert linear_cka(a, 3 * a @ rotation + 2) == pytest.approx(1)
    assert linear_cka(a, other) < 0.01


def test_half_of_the_variance_in_common_lies_between():
    generator = torch.Generator().manual_seed(0)
    a, noise = (torch.randn(20000, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    mixed = torch.cat([a[:, :2], noise[:, 2:]], dim=1)
    assert linear_cka(a, mixed) == pytest.approx(0.5, abs=0.01)
