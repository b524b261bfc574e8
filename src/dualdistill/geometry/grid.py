"""The BEV grid: the only place where metres become cells."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MAX_CELLS = 8192
"""Cells along a side: more would not fit into memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BevGrid:
    """Square-celled map over a rectangle of the BEV plane; cell (0, 0) starts at (x_min, y_min)."""

    x_min: float
    y_min: float
    cell: float
    """Side of a cell, metres."""
    width: int
    """Cells along x."""
    height: int
    """Cells along y."""

    def __post_init__(self) -> None:
        if not 0 < self.cell < math.inf or min(self.width, self.height) < 1 or max(self.width, self.height) > MAX_CELLS:
            raise ValueError(f"a BEV grid has positive cells, 1 to {MAX_CELLS} along x and y, got {self}")

    @classmethod
    def covering(cls, extent: tuple[float, float, float, float], shape: tuple[int, int]) -> "BevGrid":
        """The grid of a map of `shape` (height, width) over `extent` (x_min, y_min, x_max, y_max). Raises ValueError if
        its cells would not be square."""
        height, width = shape
        x_min, y_min, x_max, y_max = extent
        cell = (x_max - x_min) / width
        if abs((y_max - y_min) / height - cell) > 1e-6 * cell:
            raise ValueError(f"a map of {height}x{width} cells over {extent} m has cells that are not square")
        return cls(x_min=x_min, y_min=y_min, cell=cell, width=width, height=height)

    @classmethod
    def around(cls, reach: float, cell: float) -> "BevGrid":
        """The square grid over [-reach, reach)² metres. Raises ValueError if `cell` does not divide the side."""
        count = round(2 * reach / cell)
        if abs(count * cell - 2 * reach) > 1e-6 * cell:
            raise ValueError(f"cells of {cell} m do not divide a side of {2 * reach} m")
        return cls(x_min=-reach, y_min=-reach, cell=cell, width=count, height=count)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """x_min, y_min, x_max, y_max, metres."""
        x_max, y_max = self.x_min + self.width * self.cell, self.y_min + self.height * self.cell
        return self.x_min, self.y_min, x_max, y_max

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width): the last two axes of a map."""
        return self.height, self.width

    def coordinates(self, xy: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Continuous cell coordinates (column, row): integers at the lower corners of cells."""
        x, y = xy.unbind(dim=-1)
        return torch.stack([x - self.x_min, y - self.y_min], dim=-1) / self.cell

    def cells(self, xy: Float[Tensor, "*batch 2"]) -> Int[Tensor, "*batch 2"]:
        """Column and row of the cell that holds each point, by floor; may lie outside the grid."""
        return self.coordinates(xy).floor().long()

    def inside(self, cells: Int[Tensor, "*batch 2"]) -> Bool[Tensor, "*batch"]:
        """True where (column, row) is a cell of this grid."""
        x, y = cells.unbind(dim=-1)
        return (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height)

    def centers(self, device: torch.device | str = "cpu", inset: float = 0.5) -> Float[Tensor, "y x 2"]:
        """Metric centre (x, y) of every cell, or the point `inset` cells from its lower corner along both axes."""
        x = self.x_min + (torch.arange(self.width, device=device) + inset) * self.cell
        y = self.y_min + (torch.arange(self.height, device=device) + inset) * self.cell
        return torch.stack([x.expand(self.height, -1), y[:, None].expand(-1, self.width)], dim=-1)

    def coarser(self, factor: int) -> "BevGrid":
        """The grid over the same rectangle with cells `factor` times as large. Raises ValueError if `factor` does not
        divide height and width."""
        if self.width % factor or self.height % factor:
            raise ValueError(f"{self.height}x{self.width} cells cannot be merged {factor} by {factor}")
        return replace(self, cell=self.cell * factor, width=self.width // factor, height=self.height // factor)
