"""What a distiller must know of two detectors before it can be built: the shapes of their maps."""

from dataclasses import dataclass

from dualdistill.geometry.grid import BevGrid
from dualdistill.structures import BevOutput

Shape = tuple[int, int, int]
"""Channels, height (y), width (x) of a map."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BevShapes:
    """Shapes of the maps in a `BevOutput`, without their batch axis."""

    stages: tuple[Shape, ...]
    """Of the encoder stages, fine to coarse."""
    neck: Shape
    """Of the input of the detection head."""
    extent: tuple[float, float, float, float]
    """x_min, y_min, x_max, y_max of all maps, metres."""

    @classmethod
    def of(cls, output: BevOutput) -> "BevShapes":
        """The shapes of an output, say of one forward pass on a dummy batch."""
        stages = tuple((s.shape[1], s.shape[2], s.shape[3]) for s in output.stages)
        neck = (output.neck.shape[1], output.neck.shape[2], output.neck.shape[3])
        return cls(stages=stages, neck=neck, extent=output.extent)

    def grid(self, shape: Shape) -> BevGrid:
        """The BEV grid of one of these maps."""
        return BevGrid.covering(self.extent, shape[1:])
