"""Trained teachers and label encoders on disk: found by recipe or path, checked, found again."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dualdistill import hub, zoo
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment, Role
from dualdistill.experiment.plain import differences, from_plain, to_plain
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.checkpoints import fingerprint, read_facts
from dualdistill.train.run_folder import DataRecord, RunFolder, WeightsFacts, read_scores

_OPTION: dict[Role, str] = {"teacher": "--teacher", "label_encoder": "--label-encoder"}
_HEAD_WIDTHS = ("shared_channels", "head_channels")
_FREE = (
    "teacher.norm_momentum",
    "teacher.voxel.backend",
    *(f"teacher.head.{each.name}" for each in fields(CenterHeadConfig) if each.name not in _HEAD_WIDTHS),
)
"""Settings that leave a trained network what it is: how it was trained, how its maps are read, who computes."""

_WITHOUT_EFFECT = tuple(
    f"training.{name}" for name in ("save_every", "keep_last", "log_every", "validate_", "cache_precision")
)
"""Settings on which trained weights do not depend."""


@dataclass(frozen=True)
class TrainedWeights:
    """A trained teacher or label encoder as it is found on disk."""

    path: Path
    facts: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """For the record of who learns from it: which weights exactly."""
        return {
            "path": hub.name_of(self.path) or str(self.path),
            "sha256": fingerprint(self.path),
            "recipe": self.facts["recipe"],
            "step": self.facts["step"],
            "score": _score_beside(self.path),
        }

    def __str__(self) -> str:
        score = _score_beside(self.path)
        text = "not evaluated" if score is None else ", ".join(f"{k} {100 * v:.1f}" for k, v in score.items())
        return f"{self.path} ({self.facts['recipe']}, step {self.facts['step']}, {text})"

    @classmethod
    def recall(cls, identity: dict[str, Any]) -> "TrainedWeights":
        """The weights of a record. Raises UserError if they are gone, or others are in their place."""
        path = zoo.with_fingerprint(identity["sha256"]) or hub.resolve(identity["path"])
        if not path.is_file():
            raise UserError(f"{path} is needed ({identity['recipe']}), and is gone: put it back where it was.")
        if fingerprint(path) != identity["sha256"]:
            raise UserError(f"{path} ({identity['recipe']}) is not the one this run began with: it has changed.")
        return cls(path, read_facts(path, WeightsFacts))


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What weights must come from to be taken without being named."""

    recipe: str
    settings: Experiment | None
    """Experiment of the recipe; None where only the name is known."""
    learner: Experiment
    """Who will learn from them: settings that it has in common with them may differ from the recipe."""
    data: DataRecord
    out: Path
    """Folder of the runs."""

    def reason_against(self, weights: TrainedWeights) -> str | None:
        """Why weights are not taken; None if they are."""
        theirs = weights.facts["data"]
        if theirs is None or any(theirs.get(key) != self.data.get(key) for key in ("version", "split", "tables")):
            where = "unknown data" if theirs is None else f"{theirs['root']} ({theirs['version']}, {theirs['split']})"
            return f"was trained on {where}"
        if self.settings is None:
            return None
        plain = (to_plain(self.settings), weights.facts["experiment"], to_plain(self.learner))
        ours, came, learner = ({**each, "teacher": None} for each in plain)
        shared = {key for key, _, _ in differences(ours, came)} - {key for key, _, _ in differences(learner, came)}
        rows = [
            f"{key}={_typed(value)} (in the recipe {_typed(own)})"
            for key, own, value in differences(ours, came)
            if key not in shared and not key.startswith(_WITHOUT_EFFECT)
        ]
        return f"has other settings: {', '.join(rows)}" if rows else None


def find_teacher(given: Path | None, wanted: Wanted) -> TrainedWeights:
    """The teacher the user names, or the newest finished run of the teacher's recipe on the same data. Raises UserError
    if there is none, it is not a teacher, or it is another network than the learner's teacher."""
    weights = _named(given, "teacher") if given is not None else _found(wanted, "teacher")
    # Shapes do not show all of it: neither the size of pillars nor their empty rows.
    theirs, ours = (to_plain(each)["teacher"] for each in (from_plain(weights.facts["experiment"]), wanted.learner))
    name = f"{weights.path} ({weights.facts['recipe']})"
    if (theirs["voxel"] is None) != (ours["voxel"] is None):
        kind, other = ("pillars", "voxels") if theirs["voxel"] is None else ("voxels", "pillars")
        raise UserError(
            f"{name} is a CenterPoint with {kind}, and this recipe learns from one with {other}. Take a recipe with "
            "such a teacher: `dualdistill recipes list`."
        )
    differ = [row for row in differences(ours, theirs, "teacher") if not row[0].startswith(_FREE)]
    if differ:
        sets = " ".join(f"--set {key}={_typed(value)}" for key, _, value in differ)
        rows = "".join(f"\n  {key}: {_typed(value)}, in this recipe {_typed(here)}" for key, here, value in differ)
        raise UserError(
            f"{name} is another model than the teacher of this recipe. It has:{rows}\nTo learn from it, add:\n  {sets}"
        )
    return weights


def find_label_encoder(given: Path | None, wanted: Wanted, teacher: TrainedWeights) -> TrainedWeights:
    """The label encoder the user names, or the newest finished run of its recipe with this teacher on the same data.
    Raises UserError if there is none, it is not a label encoder, or it was trained for another teacher."""
    if given is None:
        return _found(wanted, "label_encoder", teacher)
    weights = _named(given, "label_encoder")
    if reason := _another_teacher(weights, teacher):
        raise UserError(
            f"{weights.path} {reason}, the teacher here is {teacher.path}: give that one with --teacher, or train a "
            f"label encoder for this one with `dualdistill train {wanted.recipe} --data … --teacher {teacher.path}`."
        )
    return weights


def _another_teacher(weights: TrainedWeights, teacher: TrainedWeights) -> str | None:
    theirs = weights.facts["teacher"]
    if theirs is not None and theirs["sha256"] == fingerprint(teacher.path):
        return None
    return f"was trained for the head of {theirs['path'] if theirs else 'an unknown teacher'}"


def _typed(value: Any) -> str:
    """A plain value as --set takes it."""
    if isinstance(value, list):
        return ",".join(map(_typed, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _named(given: Path, role: Role) -> TrainedWeights:
    """The weights in a run folder or file, if they have that role."""
    path = hub.resolve(given)
    path = RunFolder.open(path).weights() if path.is_dir() else path
    facts = read_facts(path, WeightsFacts)
    if facts["role"] != role:
        expected = f"{_OPTION[role]} expected the weights of a {role.replace('_', ' ')}"
        raise UserError(f"{path} holds a {facts['role']} ({facts['recipe']}); {expected}.")
    return TrainedWeights(path.resolve(), facts)


def _found(wanted: Wanted, role: Role, teacher: TrainedWeights | None = None) -> TrainedWeights:
    """The newest weights below `wanted.out` that nothing speaks against. `teacher`: whose head a label encoder must
    have been trained for."""
    runs = [RunFolder(path.parent) for path in wanted.out.glob(f"{wanted.recipe}/*/finished.json")]
    files = [folder / f"{role}.safetensors" for run in runs if (folder := run.pointed("last"))]
    against = []
    for file in sorted((file for file in files if file.is_file()), key=lambda file: file.stat().st_mtime, reverse=True):
        weights = TrainedWeights(file.resolve(), read_facts(file, WeightsFacts))
        reason = wanted.reason_against(weights) or (teacher and _another_teacher(weights, teacher))
        if reason is None:
            return weights
        against.append(f"\n  {file.parents[2]} {reason}")
    more = f" --teacher {teacher.path}" if teacher is not None else ""
    left_out = f" Not taken, but for the asking with {_OPTION[role]}:{''.join(against)}" if against else ""
    raise UserError(
        f"This recipe learns from a trained {wanted.recipe}, and {wanted.out} has no finished run of it on these data. "
        f"Train one with `dualdistill train {wanted.recipe} --data … --out {wanted.out}{more}`, or name one with "
        f"{_OPTION[role]}.{left_out}"
    )


def _score_beside(weights: Path) -> dict[str, float] | None:
    """mAP and NDS of a checkpoint, where it has been evaluated."""
    if name := zoo.name_of(weights):
        return zoo.card(name).score
    metrics = evaluation_folder(weights) / "metrics.json"
    values = read_scores(metrics) if metrics.is_file() else {}
    return {"mAP": values["mean_ap"], "NDS": values["nd_score"]} if values else None


def evaluation_folder(weights: Path) -> Path:
    """Where a checkpoint's scores are: in its run; next to the file, under its name, for weights outside a run; below
    runs/ for published models."""
    if name := hub.name_of(weights):
        return Path("runs") / name.replace(":", "/")
    weights = weights.resolve()
    folders = weights.parents[2:3]  # run/checkpoints/step_000400/student.safetensors
    if folders and (folders[0] / "experiment.json").is_file():
        return RunFolder(folders[0]).evaluation(weights.parent.name)
    return weights.parent / "evaluation" / weights.stem
