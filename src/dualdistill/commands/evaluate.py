"""`evaluate`: a run, a weights file or a result file, scored with the nuScenes detection metrics."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console

from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import DivergedError, UserError
from dualdistill.evaluate.evaluation import evaluate_submission
from dualdistill.evaluate.export import detections_to_global
from dualdistill.evaluate.predict import predict
from dualdistill.evaluate.records import Detections
from dualdistill.evaluate.submission import Source, write_submission
from dualdistill.experiment.experiment import Experiment, Role
from dualdistill.models.checkpoints import load_weights, read_facts
from dualdistill.report.progress import progress
from dualdistill.report.scores import ResultRow, results_table
from dualdistill.train.assemble import (
    Network,
    build_detector,
    evaluation_loader,
    experiment_of,
    open_dataset,
    split_names,
)
from dualdistill.train.run_folder import RunFolder, write_atomically
from dualdistill.train.trained_weights import TrainedWeights, evaluation_folder

EVALUATION_BATCH = 4
_EXPECTED = ", ".join(f"{role}.safetensors" for role in get_args(Role))
_SOURCES: dict[Role, Source] = {"teacher": "lidar", "student": "camera", "label_encoder": "external"}
ORACLE = "A label encoder reads the annotations themselves: its score says how well the teacher's head reads them back."

WITHOUT_SPCONV = "spconv is not installed: plain PyTorch convolves the voxels, with the same result."


@dataclass(frozen=True, kw_only=True)
class LoadedDetector:
    """A detector as its weights file describes it."""

    path: Path
    facts: dict[str, Any]
    experiment: Experiment
    detector: Network

    @classmethod
    def load(cls, path: Path) -> "LoadedDetector":
        """Raises UserError for a file that is not ours or does not fit its own description, and for a label encoder
        whose teacher is gone."""
        facts = read_facts(path)
        if facts["role"] not in get_args(Role):
            raise UserError(f"{path} holds a {facts['role']}; expected one of {_EXPECTED}.")
        experiment = _computable(experiment_of(facts))
        through = TrainedWeights.recall(facts["teacher"]) if experiment.role == "label_encoder" else None
        detector = build_detector(experiment, through)
        load_weights(detector, path)
        return cls(path=path, facts=facts, experiment=experiment, detector=detector.eval())

    def index(self, data: Path | None, version: str | None) -> NuscenesIndex:
        """The data root that was asked for, or else the one of the training."""
        known = self.facts["data"]
        if data is None and known is None:
            raise UserError(f"{self.path} was converted and does not say which data it is for: give --data ROOT.")
        return NuscenesIndex.open(data or Path(known["root"]), version or (None if data else known["version"]))

    def dataset(self, index: NuscenesIndex, split: str | None) -> NuscenesDataset:
        split = split or split_names(index.version)[1]
        for_teacher = self.experiment.role != "student"
        return open_dataset(
            self.experiment, index, split=split, training=False, seed=self.facts["seed"], for_teacher=for_teacher
        )


def _computable(experiment: Experiment) -> Experiment:
    """With voxels convolved by plain PyTorch where spconv is missing: whoever only looks gets the same answers."""
    teacher = experiment.teacher
    if teacher is None or teacher.voxel is None:
        return experiment
    try:
        teacher.voxel.check_backend()
    except UserError:
        voxel = replace(teacher.voxel, backend="reference")
        return replace(experiment, teacher=replace(teacher, voxel=voxel))
    return experiment


@contextmanager
def naming(trained: LoadedDetector) -> Iterator[None]:
    """Says whose weights diverged, and what to do, where a detector finds that they did."""
    try:
        yield
    except DivergedError as error:
        raise UserError(
            f"The training of {trained.path} ({trained.facts['recipe']}, step {trained.facts['step']}) diverged. "
            f"{error} Take an earlier checkpoint (--checkpoint step_…; metrics.jsonl of the run shows when its losses "
            "went wrong), or train again with a lower training.optimiser.learning_rate or clip_norm."
        ) from None


def weights_of(path: Path, checkpoint: str) -> Path:
    """The detector's weights in a run folder, or the file itself."""
    if path.is_dir():
        folder = RunFolder.open(path).checkpoint(checkpoint)
        for role in get_args(Role):
            if (folder / f"{role}.safetensors").is_file():
                return folder / f"{role}.safetensors"
        raise UserError(f"{folder} holds none of {_EXPECTED}.")
    return path


def evaluate_anything(
    console: Console,
    what: Path,
    *,
    data: Path | None = None,
    version: str | None = None,
    split: str | None = None,
    out: Path | None = None,
    checkpoint: str = "last",
    workers: int | None = None,
    official: bool = False,
) -> dict[str, Any]:
    """Score `what`, print the table, write metrics.json, evaluated.json (which data) and results_nusc.json; returns the
    metrics."""
    if what.suffix == ".json":
        if data is None:
            raise UserError("A result file does not say which data it is about: give --data ROOT.")
        if not what.is_file():
            raise UserError(f"There is no result file {what}.")
        index = NuscenesIndex.open(data, version)
        results, name, folder = what, what.name, out or what.parent
        caveat = None
        split = split or split_names(index.version)[1]
    else:
        if not what.exists():
            raise UserError(f"There is no run folder, weights file or result file {what}.")
        weights = weights_of(what, checkpoint)
        trained = LoadedDetector.load(weights)
        if trained.experiment != experiment_of(trained.facts):
            console.print(WITHOUT_SPCONV)
        index = trained.index(data, version)
        split = split or split_names(index.version)[1]
        name = trained.facts["recipe"]
        caveat = ORACLE if trained.experiment.role == "label_encoder" else None
        folder = out or evaluation_folder(weights)
        results = folder / "results_nusc.json"
        write_detections(console, trained, trained.dataset(index, split), results, workers or 0)
    if official:
        from dualdistill.evaluate.official import official_metrics

        metrics = official_metrics(results, index.root, index.version, split, folder)
    else:
        metrics = evaluate_submission(results, index, split, folder)
    evaluated = {"root": str(index.root.resolve()), "version": index.version, "split": split}
    write_atomically(folder / "evaluated.json", json.dumps(evaluated, indent=2) + "\n")
    console.print(results_table([ResultRow.from_metrics(name, metrics)]).to_rich())
    if caveat is not None:
        console.print(caveat)
    console.print(f"wrote {folder / 'metrics.json'}")
    return metrics


def write_detections(
    console: Console, trained: LoadedDetector, dataset: NuscenesDataset, path: Path, workers: int = 0
) -> None:
    """Let a detector look at every sample and write its result file.

    Raises:
        UserError: if its weights diverged.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained.detector.to(device)
    loader = evaluation_loader(dataset, EVALUATION_BATCH, workers)
    with progress(console, f"detecting with {trained.facts['recipe']}") as say, naming(trained):
        answers = predict(trained.detector, loader, device=device, say=lambda done: say(done, len(dataset)))
    parts = [detections_to_global(boxes, meta, sample=i) for i, (meta, boxes) in enumerate(answers)]
    sources = [_SOURCES[trained.experiment.role]]
    write_submission(path, Detections.concatenate(parts), [meta.token for meta, _ in answers], sources=sources)
