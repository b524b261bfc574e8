"""Results the literature reports on nuScenes val, beside the recipe they belong to. None was measured here."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A row of a published table, in points (percent)."""

    mean_ap: float
    nds: float
    source: str


_DUALDISTILL = "DualDistill, BMVC 2025"
_POSTER = "DualDistill poster, BMVC 2025 (ablation)"
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
    "distillbev-centerpoint": Published(mean_ap=39.0, nds=50.6, source="DistillBEV repository"),
    "distillbev-centerpoint-r101": Published(mean_ap=43.6, nds=53.6, source="DistillBEV repository"),
    "dualdistill-centerpoint": Published(mean_ap=40.5, nds=51.4, source=_DUALDISTILL),
    "dualdistill-centerpoint-r101": Published(mean_ap=45.5, nds=55.6, source=_DUALDISTILL),
    "distillbev-mvp": Published(mean_ap=40.3, nds=51.0, source="DistillBEV repository"),
    "distillbev-mvp-r101": Published(mean_ap=45.0, nds=54.6, source="DistillBEV repository"),
    "dualdistill-mvp": Published(mean_ap=41.5, nds=51.9, source=_DUALDISTILL),
    "dualdistill-mvp-r101": Published(mean_ap=46.6, nds=56.3, source=_DUALDISTILL),
    "dualdistill-mvp-temperature-1.0": Published(mean_ap=40.9, nds=51.5, source=_POSTER),
    "dualdistill-mvp-temperature-0.5": Published(mean_ap=41.2, nds=51.9, source=_POSTER),
    "dualdistill-mvp-ground-truth": Published(mean_ap=40.3, nds=51.1, source=_POSTER),
    "dualdistill-mvp-upsample-conv": Published(mean_ap=41.0, nds=51.3, source=_POSTER),
}
"""By recipe name without the family."""
