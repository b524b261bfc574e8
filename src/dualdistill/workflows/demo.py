"""The main job from nothing: a world, a teacher, a student alone and a student distilled, scored side by side."""

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from dualdistill.data.index import NuscenesIndex
from dualdistill.report.page import ReportPage
from dualdistill.report.results import ResultRow
from dualdistill.report.tables import results_table
from dualdistill.train.run_folder import RunFolder, write_atomically
from dualdistill.workflows.data import synthesise
from dualdistill.workflows.drawing import (
    Colour,
    Exhibit,
    add_classes,
    add_facts,
    add_scenes,
    add_training,
    viewing_dataset,
)
from dualdistill.workflows.evaluation import Trained, evaluate_anything, weights_of
from dualdistill.workflows.training import start_training

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
    size = "tiny" if quick else "demo"
    root = data.with_name("synthetic-tiny") if quick else data
    console.rule("1 of 4  A synthetic driving world")
    synthesise(console, root, size, seed=0, workers=None)
    exhibits: list[Exhibit] = []
    for number, part in enumerate(PARTS, start=2):
        console.rule(f"{number} of 4  {part.name}")
        overrides = list(QUICK) if quick else []
        teacher = exhibits[0].run.path if part.colour == "distilled" else None
        path = start_training(console, part.recipe, data=root, out=out, overrides=overrides, seed=seed, teacher=teacher)
        metrics = evaluate_anything(console, path)
        trained = Trained.load(weights_of(path, "last"))
        run = RunFolder(path)
        exhibits.append(Exhibit(name=part.name, colour=part.colour, trained=trained, run=run, metrics=metrics))
    rows = result_rows(exhibits)
    table = results_table(rows)
    written = write_report(exhibits, rows, out, root, quick)
    write_atomically(out / "results.json", table.to_json() + "\n")
    console.rule()
    console.print(table.to_rich())
    console.print(caveat(root, quick))
    console.print(f"\nOpen [bold]{written}[/]  ({time.monotonic() - began:.0f} s)")
    return written


def result_rows(exhibits: list[Exhibit]) -> list[ResultRow]:
    """The teacher, the student, and the distilled student with its gain over the student."""
    teacher, student, distilled = (
        ResultRow.from_metrics(
            exhibit.name,
            exhibit.metrics,
            is_teacher=exhibit.colour == "teacher",
            steps=exhibit.trained.facts["step"],
        )
        for exhibit in exhibits
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


def write_report(exhibits: list[Exhibit], rows: list[ResultRow], out: Path, root: Path, quick: bool) -> Path:
    distilled = rows[2]
    page = ReportPage("DualDistill on a synthetic world", caveat(root, quick), byline=time.strftime("%Y-%m-%d %H:%M"))
    for row in rows:
        page.highlight(f"{100 * (row.mean_ap or 0):.1f}", f"mAP, {row.name}")
    page.highlight(f"{100 * (distilled.gain_mean_ap or 0):+.1f}".replace("-", "−"), "mAP gained by distillation")
    page.section("Result").table(results_table(rows), "Scores on the validation scenes.")
    add_classes(page, exhibits)
    add_scenes(page, exhibits, viewing_dataset(exhibits[2].trained), samples=4)
    add_training(page, exhibits)
    add_facts(page, exhibits)
    return page.write(out / "report.html")
