"""A frozen head read in a few cells says what the whole head says."""

import pytest
import torch
from torch.testing import assert_close

from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_head import CenterHead, CenterHeadConfig
from dualdistill.models.center_training import center_targets
from dualdistill.models.head_criterion import can_be_read, read_head
from tests.models.center_scenes import random_boxes

GRID = BevGrid.around(51.2, 3.2)
SMALL = CenterHeadConfig(shared_channels=8, head_channels=4)


def frozen_head() -> CenterHead:
    head = CenterHead(SMALL, in_channels=6)
    head(torch.randn(4, 6, 12, 10))  # running statistics that are not the initial ones
    for parameter in head.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return head.eval().requires_grad_(False)


def whole(head, neck, index, used):
    """The definition: everything, then the cells."""
    said = head(neck)
    cells = index[:, :, None, :].expand(-1, -1, 10, -1)
    return said.heatmap, torch.where(used[..., None], said.regression.flatten(3).gather(3, cells).mT, 0.0)


@pytest.mark.parametrize(
    ("index", "share"),
    [
        (torch.randint(0, 120, (2, 6, 7)), 0.5),
        (torch.tensor([0, 9, 110, 119, 1, 10, 118]).expand(2, 6, 7), 1.0),
        (torch.full((2, 6, 7), 57), 1.0),
        (torch.zeros(2, 6, 7, dtype=torch.long), 0.0),
        (torch.zeros(2, 6, 0, dtype=torch.long), 1.0),
        (torch.zeros(2, 6, 1, dtype=torch.long), 1.0),
    ],
    ids=["anywhere", "corners-and-edges", "all-in-one-cell", "no-box", "no-slot", "one-box"],
)
def test_numbers_and_gradients_are_those_of_the_whole_head(index, share):
    head, used = frozen_head(), torch.rand(index.shape) < share
    results = []
    for read in (whole, read_head):
        neck = torch.randn(2, 6, 12, 10, generator=torch.Generator().manual_seed(1)).requires_grad_()
        heatmap, codes = read(head, neck, index, used)
        (heatmap.sin().sum() + codes.cos().sum()).backward()
        results.append((heatmap, codes, neck.grad))
    for want, came in zip(*results, strict=True):
        assert_close(came, want, rtol=1e-4, atol=1e-5)


def test_cells_are_those_of_the_targets():
    head = CenterHead(SMALL, in_channels=6).eval().requires_grad_(False)
    targets = center_targets((random_boxes(9, seed=0), random_boxes(3, seed=1)), GRID, SMALL)
    neck = torch.randn(2, 6, *GRID.shape)
    for want, came in zip(
        whole(head, neck, targets.index, targets.mask), read_head(head, neck, targets.index, targets.mask), strict=True
    ):
        assert_close(came, want, rtol=1e-4, atol=1e-5)


def test_a_head_that_learns_is_not_read_this_way():
    assert can_be_read(frozen_head())
    assert not can_be_read(frozen_head().train())
    assert not can_be_read(frozen_head().requires_grad_())
    assert not can_be_read(lambda neck: neck)
