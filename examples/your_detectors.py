"""Two small detectors with three classes, in place of yours: what `distil.py` needs of a teacher and a student.

Each gives BEV maps (encoder stages, and the map before its head) and has a head: a function of that map which returns
heat map logits [batch, classes, y, x] and ten box codes [batch, 10, y, x] (see `dualdistill.api.losses.Head`).
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dualdistill as dd

CELLS, CELL, REACH = 32, 3.2, 51.2


class Detector(nn.Module):
    """Two convolutional stages over a raster, and a head."""

    def __init__(self, in_channels: int, width: int, neck: int):
        super().__init__()
        self.fine = nn.Conv2d(in_channels, width, 3, padding=1)
        self.coarse = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.neck = nn.Conv2d(3 * width, neck, 1)
        self.heatmap, self.codes = nn.Conv2d(neck, 3, 1), nn.Conv2d(neck, 10, 1)

    def forward(self, raster: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        fine = self.fine(raster).relu()
        coarse = self.coarse(fine).relu()
        both = torch.cat([fine, F.interpolate(coarse, scale_factor=2.0)], dim=1)
        return (fine, coarse), self.neck(both)

    def head(self, neck: Tensor) -> tuple[Tensor, Tensor]:
        return self.heatmap(neck), self.codes(neck)

    def loss(self, neck: Tensor, boxes: list[dd.Boxes]) -> Tensor:
        """Cross entropy of the cells that hold a centre."""
        target = torch.zeros_like(self.heatmap(neck))
        for sample, each in enumerate(boxes):
            column, row = ((each.center[:, :2] + REACH) / CELL).long().unbind(dim=1)
            target[sample, each.label, row, column] = 1
        return F.binary_cross_entropy_with_logits(self.heatmap(neck), target)


def batches(count: int) -> Iterator[tuple[Tensor, Tensor, list[dd.Boxes]]]:
    """Random rasters in place of point clouds and lifted images, and the boxes of two samples."""
    for _ in range(count):
        yield torch.rand(2, 5, CELLS, CELLS), torch.rand(2, 8, CELLS, CELLS), [_boxes(6), _boxes(3)]


def _boxes(count: int) -> dd.Boxes:
    return dd.Boxes(
        center=torch.rand(count, 3) * 100 - 50,
        size=torch.tensor([4.5, 1.9, 1.6]).expand(count, -1),  # length, width, height
        yaw=torch.rand(count) * 6 - 3,
        velocity=torch.full((count, 2), torch.nan),  # not annotated
        label=torch.randint(3, (count,)),
    )


teacher = Detector(in_channels=5, width=32, neck=64).eval().requires_grad_(False)
student = Detector(in_channels=8, width=24, neck=48)
