"""Colours and boxes of every drawing and page, in two themes whose colours stay distinct under colour blindness."""

from dataclasses import dataclass, field

from dualdistill.structures import CLASSES, Boxes


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """One theme: the background, the text on it, and a colour for each kind of box and curve."""

    paper: str
    ink: str
    """Titles and labels; at least 4.5:1 on `paper`."""
    muted: str
    """Ring labels and ticks; at least 4.5:1 on `paper`."""
    rule: str
    """Range rings, frames, and lines of tables."""
    accent: str
    """Links."""
    tint: str
    """Background of a table row under the pointer."""
    point_low: str
    """LiDAR points on the ground."""
    point_high: str
    """LiDAR points well above it."""
    truth: str
    teacher: str
    student: str
    distilled: str
    other: str
    """The fifth curve of a plot."""
    classes: dict[str, str] = field(default_factory=dict)
    """Colour of each of `CLASSES`, for layers without a colour of their own."""

    @property
    def series(self) -> tuple[str, ...]:
        """Colours of the curves in one plot, in order."""
        return (self.teacher, self.student, self.distilled, self.truth, self.other, self.muted)


_BRIGHT = (
    *("#ff9e4a", "#ff6b6b", "#e8d44d", "#ff7ac6", "#c79bff"),
    *("#8aa0b8", "#5ee0c0", "#67d967", "#5cb8ff", "#f2f2f2"),
)
_DEEP = (
    *("#c25700", "#b3261e", "#8a7400", "#b0177a", "#6f3fc0"),
    *("#5a6b7d", "#007a63", "#2a7d2a", "#1565b8", "#3a3a3a"),
)

LIGHT = Theme(
    paper="#ffffff",
    ink="#1d2126",
    muted="#62686f",
    rule="#dcdfe3",
    accent="#2f55c8",
    tint="#f5f6f8",
    point_low="#c9ced4",
    point_high="#6d7680",
    truth="#00905a",
    teacher="#b86e00",
    student="#c8412b",
    distilled="#3657d6",
    other="#8a3ea8",
    classes=dict(zip(CLASSES, _DEEP, strict=True)),
)
DARK = Theme(
    paper="#16191d",
    ink="#e8eaed",
    muted="#9aa1a9",
    rule="#33383f",
    accent="#9db2ff",
    tint="#1e2227",
    point_low="#414850",
    point_high="#a9b2bc",
    truth="#35d07f",
    teacher="#f2b04a",
    student="#ff7d66",
    distilled="#8ea6ff",
    other="#cf9be6",
    classes=dict(zip(CLASSES, _BRIGHT, strict=True)),
)
"""Also used on camera images in every theme, since bright lines are the most legible there."""


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
