"""Results the literature reports on nuScenes val, beside the recipe they belong to. None was measured here."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A row of a published table, in points (percent)."""

    mean_ap: float
    nds: float
    source: str


_DUALDISTILL = "DualDistill, BMVC 2025"
_DISTILLBEV = "DistillBEV repository, same code without a teacher"

PUBLISHED: dict[str, Published] = {
    "student": Published(mean_ap=36.4, nds=48.4, source=_DISTILLBEV),
    "student-r101": Published(mean_ap=40.7, nds=52.2, source=_DISTILLBEV),
    "student-official": Published(mean_ap=33.04, nds=43.55, source="BEVDepth repository, two key frames, 24 epochs"),
    "teacher-centerpoint": Published(
        mean_ap=48.7,
        nds=59.8,
        source="DistillBEV authors, issue tracker: the pillar checkpoint that was distilled",
    ),
    "dualdistill-centerpoint": Published(mean_ap=40.5, nds=51.4, source=_DUALDISTILL),
    "dualdistill-centerpoint-r101": Published(mean_ap=45.5, nds=55.6, source=_DUALDISTILL),
}
"""By recipe name without the family. Rows published for the MVP teacher come with its recipes."""
