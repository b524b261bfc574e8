"""Shapes of a detector's maps, from which a distiller is built."""

from dataclasses import dataclass

from torch import Tensor

from dualdistill.geometry.grid import BevGrid
from dualdistill.settings import Count, Natural, checked
from dualdistill.structures import BevOutput

Shape = tuple[Count, Count, Count]
"""Channels, height (y), width (x) of a map."""


@dataclass(frozen=True, kw_only=True, slots=True)
@checked
class BevShapes:
    """Shapes (channels, height, width) of the maps in a `BevOutput`, without their batch axis.

    All maps cover one rectangle of the ground, in a frame that both detectors share: rows grow with y, columns with x,
    and cells are square.
    """

    stages: tuple[Shape, ...]
    """Encoder stages, fine to coarse."""
    neck: Shape
    """Input of the detection head."""
    extent: tuple[float, float, float, float]
    """x_min, y_min, x_max, y_max of all maps, metres."""
    canvas: tuple[Natural, Natural, Natural] = (0, 0, 0)
    """Input of the BEV encoder; if not given, the finest stage is used."""
    frames: Count = 1
    """Frames stacked in the canvas."""
    image: Shape | None = None
    """Image features of one camera; None for a detector without cameras."""

    def __post_init__(self) -> None:
        x_min, y_min, x_max, y_max = self.extent
        if x_min >= x_max or y_min >= y_max:
            raise ValueError(
                f"extent must be x_min, y_min, x_max, y_max in metres, each below its maximum: {self.extent}"
            )
        if not self.canvas[0]:
            object.__setattr__(self, "canvas", (*self.stages, self.neck)[0])

    @classmethod
    def of(cls, output: BevOutput) -> "BevShapes":
        """The shapes of an output, such as that of one forward pass on a random batch."""
        return cls(
            canvas=_shape(output.canvas),
            stages=tuple(map(_shape, output.stages)),
            neck=_shape(output.neck),
            extent=output.extent,
            frames=output.frames,
            image=None if output.camera is None else _shape(output.camera.features[:, 0]),
        )

    def grid(self, shape: Shape) -> BevGrid:
        """The BEV grid of one of these maps."""
        return BevGrid.covering(self.extent, shape[1:])


def _shape(features: Tensor) -> Shape:
    return features.shape[1], features.shape[2], features.shape[3]
