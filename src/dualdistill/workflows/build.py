"""From a record to living parts: data sets, detectors, distillers, and weights that say what they are."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from dualdistill.data.collate import collate
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.distill.shapes import BevShapes
from dualdistill.errors import UserError
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.center_head import inherit_task_heads
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.models.checkpoints import fingerprint, load_weights, read_facts
from dualdistill.recipes.experiment import Experiment, from_plain
from dualdistill.structures import Batch
from dualdistill.train.run_folder import RunFolder
from dualdistill.train.step import Distillation, freeze


@dataclass(frozen=True)
class TeacherWeights:
    """A trained teacher as it is found on disk."""

    path: Path
    facts: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """For the record of the student: which teacher exactly."""
        return {
            "path": str(self.path),
            "sha256": fingerprint(self.path),
            "recipe": self.facts["recipe"],
            "step": self.facts["step"],
            "score": _score_beside(self.path),
        }


def split_names(version: str) -> tuple[str, str]:
    """Training and validation split of a version."""
    return ("mini_train", "mini_val") if version.endswith("mini") else ("train", "val")


def open_dataset(
    experiment: Experiment, index: NuscenesIndex, *, split: str, training: bool, seed: int
) -> NuscenesDataset:
    """The samples of a split as the experiment's networks take them."""
    positions = samples_of_split(index, split)
    return NuscenesDataset(index, experiment.data, positions, training=training, seed=seed)


def evaluation_loader(dataset: NuscenesDataset, batch_size: int, workers: int) -> DataLoader[Batch]:
    """Every sample once, in order."""
    return DataLoader(
        dataset,
        batch_sampler=[
            [(0, i) for i in range(start, min(start + batch_size, len(dataset)))]
            for start in range(0, len(dataset), batch_size)
        ],
        collate_fn=collate,
        num_workers=workers,
    )


def build_detector(experiment: Experiment) -> BevDepth | CenterPoint:
    """The network that learns in this experiment, freshly initialised."""
    if experiment.student is not None:
        return BevDepth(experiment.student)
    assert experiment.teacher is not None
    return CenterPoint(experiment.teacher)


def load_teacher(experiment: Experiment, weights: TeacherWeights) -> CenterPoint:
    """The trained teacher of an experiment, frozen."""
    assert experiment.teacher is not None
    teacher = CenterPoint(experiment.teacher)
    load_weights(teacher, weights.path)
    freeze(teacher)
    return teacher


def build_distillation(experiment: Experiment, student: BevDepth, teacher: CenterPoint, example: Batch) -> Distillation:
    """The experiment's distiller, fitted to the shapes both detectors give for one example; heads inherited."""
    assert experiment.distiller is not None
    if experiment.inherit_head:
        inherit_task_heads(student.head, teacher.head)
    was_training = student.training
    student.eval()
    with torch.no_grad():
        taught, learnt = BevShapes.of(teacher(example)), BevShapes.of(student(example))
    student.train(was_training)
    distiller = experiment.distiller.build(teacher=taught, student=learnt, judge=teacher.judge())
    return Distillation(distiller, experiment.distiller.weights, teacher)


def find_teacher(experiment: Experiment, given: Path | None, out: Path) -> TeacherWeights:
    """The teacher the user names, or the newest finished run of the teacher's recipe below `out`.

    Raises:
        UserError: if there is none, or it is not a teacher.
    """
    if given is not None:
        path = given
        if given.is_dir():
            folder = RunFolder.open(given).checkpoint("last")
            path = next(iter(folder.glob("teacher.safetensors")), folder / "student.safetensors")
    else:
        recipe = experiment.teacher_recipe
        assert recipe is not None
        runs = sorted(out.glob(f"{recipe}/*/checkpoints/last/teacher.safetensors"), key=lambda p: p.stat().st_mtime)
        runs = [run for run in runs if (run.parents[2] / "finished.json").is_file()]
        if not runs:
            raise UserError(
                f"This recipe learns from a trained {recipe}, and {out} has no finished run of it. Train one with "
                f"`dualdistill train {recipe} --data … --out {out}`, or name one with --teacher."
            )
        path = runs[-1]
    facts = read_facts(path)
    if facts["role"] != "teacher":
        raise UserError(
            f"{path} holds a {facts['role']} ({facts['recipe']}); --teacher expected the weights of a LiDAR teacher."
        )
    return TeacherWeights(path.resolve(), facts)


def experiment_of(facts: dict[str, Any]) -> Experiment:
    """The experiment a weights file was made by."""
    return from_plain(facts["experiment"])


def _score_beside(weights: Path) -> dict[str, float] | None:
    """mAP and NDS of a checkpoint, where it has been evaluated."""
    metrics = evaluation_folder(weights) / "metrics.json"
    if not metrics.is_file():
        return None
    values = json.loads(metrics.read_text())
    return {"mAP": values["mean_ap"], "NDS": values["nd_score"]}


def evaluation_folder(weights: Path) -> Path:
    """Where a checkpoint's scores are: in its run; next to the file, under its name, for weights outside a run."""
    weights = weights.resolve()
    run = run_folder_of(weights)
    return run.evaluation(weights.parent.name) if run else weights.parent / "evaluation" / weights.stem


def run_folder_of(path: Path) -> RunFolder | None:
    """The run a weights file lies in, if it does."""
    folder = path.resolve().parents[2] if len(path.resolve().parents) > 2 else None
    return RunFolder(folder) if folder is not None and (folder / "experiment.json").is_file() else None
