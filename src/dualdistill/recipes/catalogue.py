"""All recipes by name, each with the published result of its row."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.external import explained, is_reference, load
from dualdistill.recipes import nuscenes, synthetic


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A row of a published table, in points (percent)."""

    mean_ap: float
    nds: float
    source: str


_DUALDISTILL = "DualDistill, BMVC 2025"
_POSTER = "DualDistill poster, BMVC 2025 (ablation)"
_LABELDISTILL = "LabelDistill repository: five frames, 750 channels, 30 epochs, averaged weights"
_LABELDISTILL_R101 = "DualDistill poster, BMVC 2025; its own student and teacher, more frames"
_TIGBEV = "TiG-BEV repository, {} class-balanced sampling"
_X3KD = "DualDistill poster, BMVC 2025; its own teachers and schedule"
_DISTILLBEV = "DistillBEV repository, same code without a teacher"

PUBLISHED: dict[str, Published] = {
    "student": Published(mean_ap=36.4, nds=48.4, source=_DISTILLBEV),
    "student-r101": Published(mean_ap=40.7, nds=52.2, source=_DISTILLBEV),
    "student-official": Published(mean_ap=33.04, nds=43.55, source="BEVDepth repository, two key frames, 24 epochs"),
    "teacher-centerpoint": Published(
        mean_ap=48.7, nds=59.8, source="DistillBEV authors, issue tracker: the pillar checkpoint that was distilled"
    ),
    "teacher-centerpoint-voxel": Published(
        mean_ap=56.4,
        nds=64.8,
        source="CenterPoint repository, 0.1 m voxels (before its fixes of 2021); teacher row of DistillBEV's poster",
    ),
    "teacher-centerpoint-voxel-0.075": Published(mean_ap=59.6, nds=66.8, source="CenterPoint repository"),
    "distillbev-centerpoint": Published(mean_ap=39.0, nds=50.6, source="DistillBEV repository"),
    "distillbev-centerpoint-r101": Published(mean_ap=43.6, nds=53.6, source="DistillBEV repository"),
    "dualdistill-centerpoint": Published(mean_ap=40.5, nds=51.4, source=_DUALDISTILL),
    "dualdistill-centerpoint-r101": Published(mean_ap=45.5, nds=55.6, source=_DUALDISTILL),
    "distillbev-mvp": Published(mean_ap=40.3, nds=51.0, source="DistillBEV repository"),
    "distillbev-mvp-r101": Published(mean_ap=45.0, nds=54.6, source="DistillBEV repository"),
    "labeldistill-centerpoint-voxel": Published(mean_ap=41.9, nds=52.8, source=_LABELDISTILL),
    "labeldistill-centerpoint-voxel-r101": Published(mean_ap=45.1, nds=55.3, source=_LABELDISTILL_R101),
    "tigbev-centerpoint-voxel": Published(mean_ap=36.6, nds=46.1, source=_TIGBEV.format("without")),
    "tigbev-centerpoint-voxel-r101": Published(mean_ap=44.0, nds=54.4, source=_TIGBEV.format("with")),
    "x3kd-full-centerpoint-voxel": Published(mean_ap=39.0, nds=50.5, source=_X3KD),
    "x3kd-full-centerpoint-voxel-r101": Published(mean_ap=44.8, nds=55.3, source=_X3KD),
    "dualdistill-mvp": Published(mean_ap=41.5, nds=51.9, source=_DUALDISTILL),
    "dualdistill-mvp-r101": Published(mean_ap=46.6, nds=56.3, source=_DUALDISTILL),
    "dualdistill-mvp-temperature-1.0": Published(mean_ap=40.9, nds=51.5, source=_POSTER),
    "dualdistill-mvp-temperature-0.5": Published(mean_ap=41.2, nds=51.9, source=_POSTER),
    "dualdistill-mvp-ground-truth": Published(mean_ap=40.3, nds=51.1, source=_POSTER),
    "dualdistill-mvp-upsample-conv": Published(mean_ap=41.0, nds=51.3, source=_POSTER),
}
"""Results the literature reports on nuScenes val, by recipe name without the family. None was measured here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A name, what it is in a line, and the function that builds the experiment."""

    name: str
    summary: str
    build: Callable[[], Experiment]
    published: Published | None = None
    """What the literature reports for this row on nuScenes val; never for the synthetic family."""
    reference: str | None = None
    """Where a recipe outside this package stands, see `external`."""

    @property
    def typed(self) -> str:
        """What a user types for it."""
        return self.reference or self.name


def _family(name: str, builders: dict[str, tuple[str, Callable[[], Experiment]]]) -> dict[str, Recipe]:
    published = PUBLISHED if name == "nuscenes" else {}
    return {
        f"{name}/{short}": Recipe(name=f"{name}/{short}", summary=summary, build=build, published=published.get(short))
        for short, (summary, build) in builders.items()
    }


RECIPES: dict[str, Recipe] = _family("nuscenes", nuscenes.BUILDERS) | _family("synthetic", synthetic.BUILDERS)


def find(name: str) -> Recipe:
    """The recipe of that name, or the one in a file outside this package: `path/to/file.py:function`. Raises UserError
    if there is none; names the nearest ones."""
    if is_reference(name):
        return _outside(name)
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else "`dualdistill recipes list` shows all."
        raise UserError(f"There is no recipe {name!r}. {hint}")
    return RECIPES[name]


def _outside(reference: str) -> Recipe:
    function = load(reference)

    def build() -> Experiment:
        with explained(reference):
            experiment = function() if callable(function) else function
        if not isinstance(experiment, Experiment):
            raise UserError(
                f"{reference} gave {type(experiment).__name__}: expected a function that returns Experiment."
            )
        return experiment

    where, _, name = reference.rpartition(":")
    is_file = where.endswith(".py")
    return Recipe(
        name=f"{Path(where).stem if is_file else where}/{name}",
        summary=(function.__doc__ or "").strip().partition("\n")[0],
        build=build,
        reference=f"{Path(where).resolve()}:{name}" if is_file else reference,
    )
