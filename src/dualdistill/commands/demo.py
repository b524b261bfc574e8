"""`demo`: a synthetic world, a teacher, a student alone and a distilled student, compared in one report."""

import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from dualdistill.commands.data import synthesise
from dualdistill.commands.evaluate import evaluate_anything
from dualdistill.commands.report_sections import Colour, ReportedModel, add_facts, add_scenes, add_training, all_sensors
from dualdistill.commands.train import start_training
from dualdistill.data.index import NuscenesIndex
from dualdistill.files import write_atomically
from dualdistill.ops.threads import one_thread
from dualdistill.recipes.catalogue import find
from dualdistill.report.page import ReportPage
from dualdistill.report.scores import ResultRow, class_table, results_table
from dualdistill.train.loaded_detector import LoadedDetector, weights_of
from dualdistill.train.run_folder import RunFolder, read_scores
from dualdistill.train.trained_weights import evaluation_folder

QUICK = ("training.steps=4", "training.log_every=1", "training.batch_size=2")
"""Overrides of the recipes in `demo --quick`."""


@dataclass(frozen=True)
class _Part:
    name: str
    recipe: str
    colour: Colour


PARTS = (
    _Part("LiDAR teacher", "synthetic/teacher-centerpoint", "teacher"),
    _Part("camera student", "synthetic/student", "student"),
    _Part("camera student, distilled", "synthetic/dualdistill-centerpoint", "distilled"),
)


def run_demo(console: Console, *, out: Path, data: Path, seed: int, quick: bool = False) -> Path:
    """Run the demo and print its table; returns the path of report.html.

    Args:
        out: Folder of the runs, results.json and report.html.
        data: Root of the world, which is made if it is missing.
        quick: A tiny world and a few steps, which only show that everything runs.
    """
    began = time.monotonic()
    root = data.with_name("synthetic-tiny") if quick else data
    overrides = QUICK if quick else ()
    console.rule("1 of 3  A synthetic driving world")
    synthesise(console, root, "tiny" if quick else "demo", seed=0, workers=None)
    console.rule("2 of 3  The LiDAR teacher")
    with one_thread():  # a small network is slower on two while another process loads its data
        teacher = train_and_score(console, PARTS[0].recipe, root, out, overrides, seed)
    console.rule("3 of 3  The camera student, alone and distilled, side by side")
    runs = [teacher, *_side_by_side([part.recipe for part in PARTS[1:]], root, out, overrides, seed, teacher)]
    models = [_reported(part, run) for part, run in zip(PARTS, runs, strict=True)]
    rows = result_rows(models)
    table = results_table(rows)
    report = write_report(models, rows, out, root, quick)
    write_atomically(out / "results.json", table.to_json() + "\n")
    console.rule()
    console.print(table.to_rich(console.width))
    console.print(caveat(root, quick))
    console.print(f"\nOpen {report}  ({time.monotonic() - began:.0f} s)", style="bold")
    return report


def train_and_score(
    console: Console,
    recipe: str,
    root: Path,
    out: Path,
    overrides: Sequence[str],
    seed: int,
    teacher: Path | None = None,
    workers: int | None = None,
) -> Path:
    """Train a recipe and evaluate it; returns its run folder."""
    run = start_training(
        console, recipe, data=root, out=out, overrides=list(overrides), seed=seed, teacher=teacher, workers=workers
    )
    evaluate_anything(console, run, workers=workers)
    return run


def _side_by_side(
    recipes: Sequence[str], root: Path, out: Path, overrides: Sequence[str], seed: int, teacher: Path
) -> list[Path]:
    """Train both students at once, each on its share of the cores; small networks gain little from more threads."""
    threads = max(1, (os.cpu_count() or 1) // len(recipes))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(recipes), context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        jobs = []
        for recipe in recipes:
            needed = teacher if find(recipe).build().distiller is not None else None
            jobs.append(pool.submit(_in_own_process, recipe, root, out, tuple(overrides), seed, needed))
        return [job.result() for job in jobs]


def _in_own_process(
    recipe: str, root: Path, out: Path, overrides: tuple[str, ...], seed: int, teacher: Path | None
) -> Path:
    plain = Console(force_terminal=False, soft_wrap=True, highlight=False, markup=False)
    return train_and_score(plain, recipe, root, out, overrides, seed, teacher, workers=0)


def _reported(part: _Part, run: Path) -> ReportedModel:
    loaded = LoadedDetector.load(weights_of(run, "last"))
    folder = RunFolder(run)
    metrics = read_scores(evaluation_folder(loaded.path) / "metrics.json")
    return ReportedModel(name=part.name, colour=part.colour, loaded=loaded, run=folder, metrics=metrics)


def result_rows(models: list[ReportedModel]) -> list[ResultRow]:
    """The teacher, the student, and the distilled student with its gain over the student."""
    teacher, student, distilled = (
        ResultRow.from_metrics(m.name, m.metrics, is_teacher=m.colour == "teacher", steps=m.loaded.facts["step"])
        for m in models
    )
    return [teacher, student, distilled.gaining_over(student)]


def caveat(root: Path, quick: bool) -> str:
    """A sentence on the significance of the numbers."""
    index = NuscenesIndex.open(root)
    if quick:
        return "A tiny world and a handful of steps: these numbers only show that everything runs."
    return (
        f"Synthetic world of {len(index.scene_name)} scenes, one seed, equal budget for both students, official "
        "nuScenes metrics. One short run each: a gain of either sign may be noise and does not carry over to nuScenes."
    )


def write_report(models: list[ReportedModel], rows: list[ResultRow], out: Path, root: Path, quick: bool) -> Path:
    """Write report.html with the table, drawings and loss curves of the three models."""
    distilled = rows[2]
    page = ReportPage("DualDistill on a synthetic world", caveat(root, quick), byline=time.strftime("%Y-%m-%d %H:%M"))
    for row in rows:
        page.highlight(f"{100 * (row.mean_ap or 0):.1f}", f"mAP, {row.name}")
    page.highlight(f"{100 * (distilled.gain_mean_ap or 0):+z.1f}".replace("-", "−"), "mAP gained by distillation")
    page.section("Result").table(results_table(rows), "Scores on the validation scenes.")
    classes = class_table({model.name: model.metrics["mean_dist_aps"] for model in models})
    page.table(classes, "Average precision by class, percent.")
    add_scenes(page, models, all_sensors(models[2].loaded), samples=4)
    add_training(page, models)
    add_facts(page, models)
    write_atomically(out / "report.html", page.html())
    return out / "report.html"
