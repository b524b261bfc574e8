"""Boxes with their drawing style, the common input of all drawings."""

from dataclasses import dataclass

from dualdistill.structures import CLASSES, Boxes
from dualdistill.visualize.palette import Theme


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxLayer:
    """Boxes of one source (annotations, one detector) in the BEV frame of the drawing."""

    name: str
    """Name in the legend."""
    boxes: Boxes
    colour: str | None = None
    """A matplotlib colour, for example `theme.truth`; None colours each box by its class."""
    min_score: float = 0.0
    """Lowest drawn score; annotations have no score and are always drawn."""
    filled: bool = False
    """Whether footprints are filled, which separates annotations from the outlines of detections."""
    fade: bool = True
    """Whether boxes with lower scores are fainter."""

    @property
    def shown(self) -> Boxes:
        """The boxes with at least the lowest drawn score."""
        if self.boxes.score is None:
            return self.boxes
        return self.boxes.select(self.boxes.score >= self.min_score)

    def colours(self, theme: Theme) -> list[str]:
        """Colour of each box in `shown`."""
        if self.colour is not None:
            return [self.colour] * len(self.shown)
        return [theme.classes[CLASSES[label]] for label in self.shown.label.tolist()]

    def opacities(self) -> list[float]:
        """Opacity of each box in `shown`."""
        score = self.shown.score
        if score is None or not self.fade:
            return [1.0] * len(self.shown)
        return (0.4 + 0.6 * score.clamp(0, 1)).tolist()

    def legend(self, theme: Theme) -> list[tuple[str, str]]:
        """(name, colour) of each entry in the legend."""
        if self.colour is not None:
            return [(self.name, self.colour)]
        present = sorted(set(self.shown.label.tolist()))
        return [(CLASSES[label].replace("_", " "), theme.classes[CLASSES[label]]) for label in present]
