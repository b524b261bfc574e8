"""Boxes for the tests of the detection head."""

import torch
from torch import Tensor

from dualdistill.structures import CLASSES, Boxes


def boxes_of(rows: list[tuple[float, ...]], labels: list[int]) -> Boxes:
    """From rows of x, y, z, length, width, height, yaw, vx, vy."""
    table = torch.tensor(rows).view(-1, 9)
    return Boxes(
        center=table[:, :3],
        size=table[:, 3:6],
        yaw=table[:, 6],
        velocity=table[:, 7:],
        label=torch.tensor(labels, dtype=torch.long),
    )


def random_boxes(count: int, seed: int, reach: float = 50.0, apart: float = 3.2) -> Boxes:
    """Boxes of all classes whose centres keep `apart` metres (along x or y) from each other."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    side = int(2 * reach / apart)
    places = torch.randperm(side * side, generator=generator)[:count]
    xy = torch.stack([places % side, places // side], dim=1) * apart - reach + uniform(0.0, 0.1, count, 2)
    return Boxes(
        center=torch.cat([xy, uniform(-2.0, 1.0, count, 1)], dim=1),
        size=uniform(0.5, 2.9, count, 3),
        yaw=uniform(-3.1, 3.1, count),
        velocity=uniform(-10.0, 10.0, count, 2),
        label=torch.randint(len(CLASSES), (count,), generator=generator),
    )
