"""From a trained run to its result: evaluated, looked into, described."""

import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

import dualdistill
from dualdistill.commands.evaluate import LoadedDetector, evaluate_anything, weights_of
from dualdistill.report.timing import machine
from dualdistill.science.jobs import Job, needed_run
from dualdistill.science.measure import look_inside, scores_of
from dualdistill.science.record import Result, TaughtBy, fingerprint_of
from dualdistill.train.fit import read_metrics, step_of
from dualdistill.train.run_folder import RunFolder, environment
from dualdistill.train.trained_weights import evaluation_folder


def outcome(console: Console, job: Job, path: Path, spent: Callable[[], tuple[float, float]]) -> Result:
    """Evaluate a finished run on the validation scenes and gather what is kept of it.

    Args:
        spent: Asked last: CPU and wall seconds.
    """
    run = RunFolder.open(path)
    trained = LoadedDetector.load(weights_of(path, "last"))
    index = trained.index(None, None)
    metrics = evaluate_anything(console, path)
    results = evaluation_folder(trained.path) / "results_nusc.json"
    depth, similarity = None, dict[str, dict[str, float]]()
    if job.role == "student":
        teachers = {
            recipe: LoadedDetector.load(weights_of(needed_run(recipe, Path(folder)), "last"))
            for recipe, folder in job.compared_with.items()
        }
        depth, similarity = look_inside(trained, teachers, index)
    records = read_metrics(run.metrics)
    teacher = run.experiment["teacher"]
    training = trained.experiment.training
    steps = step_of(run.checkpoint("last"))
    made_by = environment()
    result = Result(
        study=job.study,
        row=job.row,
        recipe=job.recipe,
        seed=job.seed,
        role=job.role,
        identity=job.identity,
        fingerprint=fingerprint_of(job.identity),
        scores=scores_of(metrics, results, index, job.bands, job.replicates),
        steps=steps,
        samples=steps * training.batch_size * training.accumulate,
        parameters=sum(parameter.numel() for parameter in trained.detector.parameters()),
        cpu_seconds=0.0,
        wall_seconds=0.0,
        version=dualdistill.__version__,
        commit=made_by["commit"],
        cpu=machine()["CPU"],
        teacher=_taught_by(teacher) if teacher else None,
        depth=depth,
        similarity=similarity,
        losses=_late_means(records, "loss/"),
        diagnostics=_late_means(records, "diagnostics/"),
    )
    cpu_seconds, wall_seconds = spent()
    return replace(result, cpu_seconds=cpu_seconds, wall_seconds=wall_seconds)


def _taught_by(identity: dict[str, Any]) -> TaughtBy:
    score = identity["score"] or {}
    return TaughtBy(
        recipe=identity["recipe"], sha256=identity["sha256"], mean_ap=score.get("mAP"), nd_score=score.get("NDS")
    )


def _late_means(records: list[dict[str, float]], prefix: str) -> dict[str, float]:
    """Means over the last tenth of the records, of what begins with `prefix` and is finite."""
    late = records[-max(1, len(records) // 10) :]
    names = dict.fromkeys(name for record in late for name in record if name.startswith(prefix))
    means = {name: statistics.fmean(record[name] for record in late if name in record) for name in names}
    return {name.removeprefix(prefix): mean for name, mean in means.items() if math.isfinite(mean)}
