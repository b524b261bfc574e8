"""All recipes by name, each with the published result of its row."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.external import explained, is_reference, load
from dualdistill.recipes import nuscenes, synthetic
from dualdistill.recipes.published import PUBLISHED, Published


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
