"""Trained teachers and label encoders on disk: found by recipe or path, checked, found again."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dualdistill import zoo
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment, Role
from dualdistill.experiment.plain import differences, from_plain, to_plain
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.checkpoints import fingerprint, read_facts
from dualdistill.train.run_folder import RunFolder

_WHAT: dict[Role, str] = {"teacher": "a LiDAR teacher", "label_encoder": "a label encoder", "student": "a student"}

_HEAD_WIDTHS = ("shared_channels", "head_channels")
_FREE = (
    "teacher.norm_momentum",
    "teacher.voxel.backend",
    *(f"teacher.head.{each.name}" for each in fields(CenterHeadConfig) if each.name not in _HEAD_WIDTHS),
)
"""Settings that leave a trained network what it is: how it was trained, how its maps are read, who computes."""


@dataclass(frozen=True)
class TrainedWeights:
    """A trained teacher or label encoder as it is found on disk."""

    path: Path
    facts: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """For the record of who learns from it: which weights exactly."""
        return {
            "path": zoo.name_of(self.path) or str(self.path),
            "sha256": fingerprint(self.path),
            "recipe": self.facts["recipe"],
            "step": self.facts["step"],
            "score": _score_beside(self.path),
        }

    @classmethod
    def recall(cls, identity: dict[str, Any]) -> "TrainedWeights":
        """The weights of a record.

        Raises:
            UserError: if they are gone, or others are in their place.
        """
        path = zoo.with_fingerprint(identity["sha256"]) or Path(identity["path"])
        if not path.is_file():
            raise UserError(f"{path} is needed ({identity['recipe']}), and is gone: put it back where it was.")
        if fingerprint(path) != identity["sha256"]:
            raise UserError(f"{path} ({identity['recipe']}) is not the one this run began with: it has changed.")
        return cls(path, read_facts(path))


def find_teacher(experiment: Experiment, given: Path | None, out: Path) -> TrainedWeights:
    """The teacher the user names, or the newest finished run of the teacher's recipe below `out`.

    Raises:
        UserError: if there is none, it is not a teacher, or it is another network than the recipe's teacher.
    """
    assert experiment.teacher_recipe is not None
    if given is not None:
        weights = _named(given, "teacher", "--teacher")
    elif found := _finished(experiment.teacher_recipe, "teacher", out):
        weights = found[-1]
    else:
        raise UserError(_train_one(experiment.teacher_recipe, out, "--teacher"))
    _refuse_another_network(experiment, weights)
    return weights


def find_label_encoder(
    experiment: Experiment, given: Path | None, out: Path, teacher: TrainedWeights
) -> TrainedWeights:
    """The label encoder the user names, or the newest finished run of its recipe with this teacher below `out`.

    Raises:
        UserError: if there is none, it is not a label encoder, or it was trained for another teacher.
    """
    recipe = experiment.label_encoder_recipe
    assert recipe is not None
    head = fingerprint(teacher.path)
    if given is not None:
        weights = _named(given, "label_encoder", "--label-encoder")
        if weights.facts["teacher"]["sha256"] != head:
            raise UserError(
                f"{weights.path} was trained for the head of {weights.facts['teacher']['path']}, the teacher here is "
                f"{teacher.path}: give that one with --teacher, or train a label encoder for this one with "
                f"`dualdistill train {recipe} --data … --teacher {teacher.path}`."
            )
        return weights
    found = _finished(recipe, "label_encoder", out)
    fitting = [weights for weights in found if weights.facts["teacher"]["sha256"] == head]
    if not fitting:
        others = " for this teacher (there are some for others)" if found else ""
        raise UserError(_train_one(recipe, out, "--label-encoder", f" --teacher {teacher.path}", others))
    return fitting[-1]


def _refuse_another_network(experiment: Experiment, weights: TrainedWeights) -> None:
    """Raises UserError where the weights are of another network than the recipe builds. Shapes do not show all of it:
    neither the size of pillars nor their empty rows."""
    theirs, ours = (to_plain(e)["teacher"] for e in (from_plain(weights.facts["experiment"]), experiment))
    if (theirs["voxel"] is None) != (ours["voxel"] is None):
        kind, wanted = ("pillars", "voxels") if theirs["voxel"] is None else ("voxels", "pillars")
        raise UserError(
            f"{weights.path} ({weights.facts['recipe']}) is a CenterPoint with {kind}, and this recipe learns from one "
            f"with {wanted}. Take a recipe with such a teacher: `dualdistill recipes list`."
        )
    differ = [row for row in differences(ours, theirs, "teacher") if not row[0].startswith(_FREE)]
    if differ:
        sets = " ".join(f"--set {key}={_typed(value)}" for key, _, value in differ)
        rows = "".join(f"\n  {key}: {_typed(value)}, in this recipe {_typed(here)}" for key, here, value in differ)
        raise UserError(
            f"{weights.path} ({weights.facts['recipe']}) is another model than the teacher of this recipe. It "
            f"has:{rows}\nTo learn from it, add:\n  {sets}"
        )


def _typed(value: Any) -> str:
    """A plain value as --set takes it."""
    if isinstance(value, list):
        return ",".join(map(_typed, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _named(given: Path, role: Role, option: str) -> TrainedWeights:
    """The weights in a run folder or file, if they have that role."""
    path = given = zoo.resolve(given)
    if given.is_dir():
        folder = RunFolder.open(given).checkpoint("last")
        kept = [folder / f"{one}.safetensors" for one in (role, *_WHAT)]
        path = next((file for file in kept if file.is_file()), kept[0])
    facts = read_facts(path)
    if facts["role"] != role:
        raise UserError(
            f"{path} holds a {facts['role']} ({facts['recipe']}); {option} expected the weights of {_WHAT[role]}."
        )
    return TrainedWeights(path.resolve(), facts)


def _finished(recipe: str, role: Role, out: Path) -> list[TrainedWeights]:
    """Weights of all finished runs of a recipe, the newest last."""
    runs = [RunFolder(path.parent) for path in out.glob(f"{recipe}/*/finished.json")]
    files = [folder / f"{role}.safetensors" for run in runs if (folder := run.pointed("last"))]
    found = sorted((file for file in files if file.is_file()), key=lambda file: file.stat().st_mtime)
    return [TrainedWeights(file.resolve(), read_facts(file)) for file in found]


def _train_one(recipe: str, out: Path, option: str, more: str = "", which: str = "") -> str:
    return (
        f"This recipe learns from a trained {recipe}, and {out} has no finished run of it{which}. Train one with "
        f"`dualdistill train {recipe} --data … --out {out}{more}`, or name one with {option}."
    )


def _score_beside(weights: Path) -> dict[str, float] | None:
    """mAP and NDS of a checkpoint, where it has been evaluated."""
    if name := zoo.name_of(weights):
        return zoo.card(name).score
    metrics = evaluation_folder(weights) / "metrics.json"
    if not metrics.is_file():
        return None
    values = json.loads(metrics.read_text())
    return {"mAP": values["mean_ap"], "NDS": values["nd_score"]}


def evaluation_folder(weights: Path) -> Path:
    """Where a checkpoint's scores are: in its run; next to the file, under its name, for weights outside a run; below
    runs/ for those of the zoo."""
    if name := zoo.name_of(weights):
        return Path("runs") / name.replace(":", "/")
    weights = weights.resolve()
    folders = weights.parents[2:3]  # run/checkpoints/step_000400/student.safetensors
    if folders and (folders[0] / "experiment.json").is_file():
        return RunFolder(folders[0]).evaluation(weights.parent.name)
    return weights.parent / "evaluation" / weights.stem
