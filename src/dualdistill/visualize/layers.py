"""A set of boxes and how it is drawn: what all drawings take."""

from dataclasses import dataclass

from dualdistill.structures import CLASSES, Boxes
from dualdistill.visualize.palette import Theme


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxLayer:
    """Boxes of one origin (annotations, one detector) in the BEV frame of the drawing."""

    name: str
    """Said in the legend."""
    boxes: Boxes
    colour: str | None = None
    """Any matplotlib colour, for example `theme.truth`; None colours each box by its class."""
    min_score: float = 0.0
    """Boxes that score less are left out; annotations have no score and always stay."""
    dashed: bool = False
    filled: bool = False
    """Whether a footprint is tinted from above: annotations stand out from the outlines of detections."""
    fade: bool = True
    """Whether a box is the fainter the lower its score."""

    @property
    def shown(self) -> Boxes:
        """The boxes worth drawing."""
        if self.boxes.score is None:
            return self.boxes
        return self.boxes.select(self.boxes.score >= self.min_score)

    def colours(self, theme: Theme) -> list[str]:
        """One colour for each box in `shown`."""
        if self.colour is not None:
            return [self.colour] * len(self.shown)
        return [theme.classes[CLASSES[label]] for label in self.shown.label.tolist()]

    def opacities(self) -> list[float]:
        """One opacity for each box in `shown`."""
        score = self.shown.score
        if score is None or not self.fade:
            return [1.0] * len(self.shown)
        return (0.4 + 0.6 * score.clamp(0, 1)).tolist()

    def legend(self, theme: Theme) -> list[tuple[str, str]]:
        """(name, colour) for each thing a reader must tell apart."""
        if self.colour is not None:
            return [(self.name, self.colour)]
        present = sorted(set(self.shown.label.tolist()))
        return [(CLASSES[label].replace("_", " "), theme.classes[CLASSES[label]]) for label in present]
