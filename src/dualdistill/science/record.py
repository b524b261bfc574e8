"""What is kept of a finished run: a small JSON file, all that tables and pages are made of."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Role
from dualdistill.experiment.plain import differences, from_plain, to_plain
from dualdistill.train.run_folder import write_atomically

PRETRAINING = "pretraining"
"""Key of the student that the others start from."""
WITHOUT_EFFECT = ("save_every", "log_every")
"""Settings of `training` that change no result and so are not part of an identity."""
OF_TEACHING = ("teacher_precision", "cache_precision")
"""Those that change none where nobody teaches."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """What was found between two distances from the ego vehicle."""

    low: float
    """Metres, included."""
    high: float
    """Metres, excluded."""
    mean_ap: float | None
    """Over the classes that have objects here; None if there are no objects."""
    class_ap: dict[str, float]
    objects: dict[str, int]
    """Evaluated annotations of each class that has any."""


@dataclass(frozen=True, kw_only=True)
class DepthError:
    """How far the depth a student expects (mean of its distribution) is from the LiDAR's, over cells with a label."""

    cells: int
    mean_absolute: float
    """Metres."""
    mean_relative: float
    bands: dict[str, float]
    """Mean absolute error, metres, by range of the true depth, say "10-20"."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The nuScenes metrics of a run, in [0, 1] or their own units, and what they are made of."""

    mean_ap: float
    nd_score: float
    tp_errors: dict[str, float | None]
    class_ap: dict[str, float]
    bands: list[Band]
    replicates_mean_ap: list[float]
    """Of draws of the validation scenes with replacement; draw k is of the same scenes in every run of the study."""
    replicates_nd_score: list[float]


@dataclass(frozen=True, kw_only=True)
class TaughtBy:
    """Which weights were learnt from."""

    recipe: str
    sha256: str
    mean_ap: float | None = None
    nd_score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished run."""

    study: str
    row: str
    recipe: str
    seed: int
    role: Role
    identity: dict[str, Any]
    """All that decides the result but the code: recipe, seed, resolved experiment, world, and the same of what it
    learns from."""
    fingerprint: str
    """SHA-256 of the identity."""
    scores: Scores
    """On the validation scenes. Of a label encoder: of the annotations, read back by the teacher's head."""
    steps: int
    samples: int
    """Training samples seen, repeats counted."""
    parameters: int
    cpu_seconds: float
    """Of all processes that worked on this run, interrupted ones and the evaluation included."""
    wall_seconds: float
    version: str
    commit: str | None
    cpu: str
    teacher: TaughtBy | None = None
    depth: DepthError | None = None
    similarity: dict[str, dict[str, float]] = field(default_factory=dict)
    """Linear CKA of the student's neck map with a teacher's, by that one's recipe, over "objects" and "all" cells."""
    losses: dict[str, float] = field(default_factory=dict)
    """Unweighted, mean of the last tenth of the records."""
    diagnostics: dict[str, float] = field(default_factory=dict)
    """What the distiller wanted watched, at the end."""

    @property
    def file_name(self) -> str:
        return result_name(self.row, self.seed)

    @property
    def compared(self) -> bool:
        """Whether it is a student of a table: not a teacher, and not the student that others start from."""
        return self.role == "student" and self.row != PRETRAINING


def result_name(row: str, seed: int) -> str:
    return f"{row}-seed{seed}.json"


def fingerprint_of(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def experiment_identity(plain: dict[str, Any]) -> dict[str, Any]:
    """A plain experiment without the settings that change no result."""
    idle = WITHOUT_EFFECT if plain["distiller"] is not None else (*WITHOUT_EFFECT, *OF_TEACHING)
    training = {name: value for name, value in plain["training"].items() if name not in idle}
    return plain | {"training": training}


def write_result(path: Path, result: Result) -> None:
    """Floats to six digits: far finer than what seeds differ by."""
    plain = msgspec.to_builtins(result)
    write_atomically(path, json.dumps(_rounded(plain) | {"identity": result.identity}, indent=1) + "\n")


def read_result(path: Path) -> Result:
    """
    Raises:
        UserError: for a file that is not one of these.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result, strict=False)
    except (msgspec.DecodeError, OSError) as error:
        raise UserError(f"{path} is not the result of a study's run: {error}. Delete it, and run the study.") from None


def read_results(folder: Path) -> list[Result]:
    """All results in a folder, by name of their files."""
    return [read_result(path) for path in sorted(folder.glob("*-seed*.json"))]


def what_differs(recorded: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """A line for each difference of two identities; settings that did not exist yet count with their default."""
    return [
        f"{key}: {before!r} there, {after!r} now"
        for key, before, after in differences(_with_defaults(recorded), _with_defaults(wanted))
    ]


def _with_defaults(identity: dict[str, Any]) -> dict[str, Any]:
    if "starts_from" in identity:
        started = {"starts_from": _with_defaults(identity["starts_from"])}
        identity = {"start": "student.image.pretrained"} | identity | started
    needs = {recipe: _with_defaults(needed) for recipe, needed in identity["needs"].items()}
    try:
        experiment = experiment_identity(to_plain(from_plain(identity["experiment"])))
    except UserError:  # of a version that knew settings of which this one does not: different
        experiment = identity["experiment"]
    return identity | {"experiment": experiment, "needs": needs}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
