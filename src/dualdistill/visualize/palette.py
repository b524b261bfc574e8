"""The colours of every drawing, on light and dark paper; colour-blind eyes can tell the kinds apart."""

from dataclasses import dataclass, field

from dualdistill.structures import CLASSES


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """One look: the paper, the ink on it, and what each kind of box is drawn in."""

    paper: str
    ink: str
    """Titles and labels; at least 4.5:1 on `paper`."""
    muted: str
    """Ring labels and ticks; at least 4.5:1 on `paper`."""
    rule: str
    """Range rings and frames."""
    point_low: str
    """LiDAR points on the ground."""
    point_high: str
    """LiDAR points well above it."""
    truth: str
    teacher: str
    student: str
    distilled: str
    classes: dict[str, str] = field(default_factory=dict)
    """Colour of each of `CLASSES`, for layers that carry none of their own."""


_BRIGHT = (
    "#ff9e4a",
    "#ff6b6b",
    "#e8d44d",
    "#ff7ac6",
    "#c79bff",
    "#8aa0b8",
    "#5ee0c0",
    "#67d967",
    "#5cb8ff",
    "#f2f2f2",
)
_DEEP = (
    "#c25700",
    "#b3261e",
    "#8a7400",
    "#b0177a",
    "#6f3fc0",
    "#5a6b7d",
    "#007a63",
    "#2a7d2a",
    "#1565b8",
    "#3a3a3a",
)

LIGHT = Theme(
    paper="#ffffff",
    ink="#1d2126",
    muted="#62686f",
    rule="#dcdfe3",
    point_low="#c9ced4",
    point_high="#6d7680",
    truth="#00905a",
    teacher="#b86e00",
    student="#c8412b",
    distilled="#3657d6",
    classes=dict(zip(CLASSES, _DEEP, strict=True)),
)
DARK = Theme(
    paper="#16191d",
    ink="#e8eaed",
    muted="#9aa1a9",
    rule="#33383f",
    point_low="#414850",
    point_high="#a9b2bc",
    truth="#35d07f",
    teacher="#f2b04a",
    student="#ff7d66",
    distilled="#8ea6ff",
    classes=dict(zip(CLASSES, _BRIGHT, strict=True)),
)
"""Also what is drawn on photographs, whatever the page around them: bright lines read best there."""
