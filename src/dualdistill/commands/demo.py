"""The main job from nothing: a world, a teacher, a student alone and a student distilled, scored side by side."""

import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from dualdistill.commands.data import synthesise
from dualdistill.commands.evaluate import LoadedDetector, evaluate_anything, weights_of
from dualdistill.commands.train import start_training
from dualdistill.commands.visualize import (
    Colour,
    ReportedModel,
    add_classes,
    add_facts,
    add_scenes,
    add_training,
    viewing_dataset,
)
from dualdistill.data.index import NuscenesIndex
from dualdistill.recipes.catalogue import find
from dualdistill.report.page import ReportPage
from dualdistill.report.scores import ResultRow, results_table
from dualdistill.train.run_folder import RunFolder, write_atomically
from dualdistill.train.trained_weights import evaluation_folder

QUICK = ("training.steps=4", "training.log_every=1", "training.batch_size=2")
"""Overrides of `demo --quick`."""


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
    """Returns the path of report.html."""
    began = time.monotonic()
    root = data.with_name("synthetic-tiny") if quick else data
    overrides = QUICK if quick else ()
    console.rule("1 of 3  A synthetic driving world")
    synthesise(console, root, "tiny" if quick else "demo", seed=0, workers=None)
    console.rule("2 of 3  The LiDAR teacher")
    with _one_thread():
        teacher = train_and_score(console, PARTS[0].recipe, root, out, overrides, seed)
    console.rule("3 of 3  The camera student, alone and distilled, side by side")
    runs = [teacher, *_side_by_side([part.recipe for part in PARTS[1:]], root, out, overrides, seed, teacher)]
    models = [_exhibit(part, run) for part, run in zip(PARTS, runs, strict=True)]
    rows = result_rows(models)
    table = results_table(rows)
    written = write_report(models, rows, out, root, quick)
    write_atomically(out / "results.json", table.to_json() + "\n")
    console.rule()
    console.print(table.to_rich(console.width))
    console.print(caveat(root, quick))
    console.print(f"\nOpen [bold]{written}[/]  ({time.monotonic() - began:.0f} s)")
    return written


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
    evaluate_anything(console, run)
    return run


@contextmanager
def _one_thread() -> Iterator[None]:
    """A network this small takes longer on two threads, while another process loads its data."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _side_by_side(
    recipes: Sequence[str], root: Path, out: Path, overrides: Sequence[str], seed: int, teacher: Path
) -> list[Path]:
    """Both students at once, each on its share of the cores: small networks gain little from a second thread."""
    threads = max(1, (os.cpu_count() or 1) // len(recipes))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(recipes), context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        jobs = []
        for recipe in recipes:
            taught = teacher if find(recipe).build().distiller is not None else None
            jobs.append(pool.submit(_in_own_process, recipe, root, out, tuple(overrides), seed, taught))
        return [job.result() for job in jobs]


def _in_own_process(
    recipe: str, root: Path, out: Path, overrides: tuple[str, ...], seed: int, teacher: Path | None
) -> Path:
    plain = Console(force_terminal=False, soft_wrap=True, highlight=False)
    return train_and_score(plain, recipe, root, out, overrides, seed, teacher, workers=0)


def _exhibit(part: _Part, run: Path) -> ReportedModel:
    trained = LoadedDetector.load(weights_of(run, "last"))
    folder = RunFolder(run)
    metrics = json.loads((evaluation_folder(trained.path) / "metrics.json").read_text())
    return ReportedModel(name=part.name, colour=part.colour, trained=trained, run=folder, metrics=metrics)


def result_rows(models: list[ReportedModel]) -> list[ResultRow]:
    """The teacher, the student, and the distilled student with its gain over the student."""
    teacher, student, distilled = (
        ResultRow.from_metrics(
            model.name,
            model.metrics,
            is_teacher=model.colour == "teacher",
            steps=model.trained.facts["step"],
        )
        for model in models
    )
    return [teacher, student, distilled.gaining_over(student)]


def caveat(root: Path, quick: bool) -> str:
    """What the numbers are worth."""
    index = NuscenesIndex.open(root)
    if quick:
        return "A tiny world and a handful of steps: these numbers only show that everything runs."
    return (
        f"Synthetic world of {len(index.scene_name)} scenes, one seed, equal budget for both students, official "
        "nuScenes metrics. One short run each: a gain of either sign may be noise, and says nothing about nuScenes."
    )


def write_report(models: list[ReportedModel], rows: list[ResultRow], out: Path, root: Path, quick: bool) -> Path:
    distilled = rows[2]
    page = ReportPage("DualDistill on a synthetic world", caveat(root, quick), byline=time.strftime("%Y-%m-%d %H:%M"))
    for row in rows:
        page.highlight(f"{100 * (row.mean_ap or 0):.1f}", f"mAP, {row.name}")
    page.highlight(f"{100 * (distilled.gain_mean_ap or 0):+.1f}".replace("-", "−"), "mAP gained by distillation")
    page.section("Result").table(results_table(rows), "Scores on the validation scenes.")
    add_classes(page, models)
    add_scenes(page, models, viewing_dataset(models[2].trained), samples=4)
    add_training(page, models)
    add_facts(page, models)
    return page.write(out / "report.html")
