"""`demo`: a camera student trained alone and distilled, at equal budget on a synthetic world, and compared."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from rich.console import Console

from dualdistill.commands.data import synthesise
from dualdistill.commands.evaluate import evaluate_anything
from dualdistill.commands.options.training import Demo, Evaluate, Train
from dualdistill.commands.train import start_training
from dualdistill.commands.visualize import Colour, ReportedModel, add_facts, add_scenes, add_training, all_sensors
from dualdistill.data.index import NuscenesIndex
from dualdistill.evaluate.bootstrap import Gain, gain_over_scenes
from dualdistill.files import require_folder, write_atomically
from dualdistill.ops.threads import one_thread
from dualdistill.report.page import ReportPage
from dualdistill.report.scores import ResultRow, class_table, results_table, written_interval
from dualdistill.synthetic import DEMO, TINY, SyntheticConfig
from dualdistill.train.assemble import split_names
from dualdistill.train.loaded_detector import LoadedDetector, weights_of
from dualdistill.train.run_folder import RunFolder
from dualdistill.train.trained_weights import evaluation_folder

TEACHER, BACKBONE = "zoo:teacher-centerpoint", "zoo:backbone"

SETS = (
    f"student.image.pretrained={BACKBONE}",
    "student.image.frozen_stem=true",
    "training.batch_size=2",
    "training.steps=600",
    "training.save_every=600",
)
"""Changes of both students' recipes."""
CACHE_PRECISION = "training.cache_precision=fp16"
"""Change of the distilled student's: each sample is seen three times, and a cache runs the teacher once on each."""
QUICK = ("training.steps=4", "training.log_every=1", "training.batch_size=2")
"""Changes of every recipe in `demo --quick`, instead of those."""

PHOTO_WIDTH = 800
"""Pixels of the photographs that are drawn on; the networks see 192 of them."""
PHOTO_SCENES = 3


class _Part(NamedTuple):
    name: str
    recipe: str
    colour: Colour
    sets: tuple[str, ...]


PARTS = (
    _Part("LiDAR teacher", "synthetic/teacher-centerpoint", "teacher", ()),
    _Part("student alone", "synthetic/student", "student", SETS),
    _Part("student, distilled", "synthetic/dualdistill-centerpoint", "distilled", (*SETS, CACHE_PRECISION)),
)


def run_demo(console: Console, options: Demo) -> Path:
    """Run the demo and print its table; returns the path of report.html.

    The photographs of the report lie beside the world, which is always the same. Raises UserError where no folder can
    be at `out`, before anything is made.
    """
    out, quick = options.out, options.quick
    require_folder(out)
    began = time.monotonic()
    root = options.data.with_name("synthetic-tiny") if quick else options.data
    photographs = root.with_name(f"{root.name}-photographs")
    parts = [adapted(part, quick, options.from_scratch) for part in PARTS]
    teaching, alone, distilling = (
        Train(part.recipe, root, out, list(part.sets), options.seed, check=False)  # the world was just made
        for part in parts
    )
    console.rule("1 of 3  A synthetic driving world")
    synthesise(console, root, TINY if quick else DEMO)
    synthesise(console, photographs, _photographs(quick))
    index = NuscenesIndex.open(root)
    console.rule("2 of 3  The LiDAR teacher")
    teacher = Path(TEACHER)
    if options.from_scratch:
        with one_thread():  # a small network is slower on two while another process loads its data
            teacher = train_and_score(console, teaching)
    else:
        console.print(f"{TEACHER} ships with the package, trained and scored on other scenes: dualdistill zoo")
    console.rule("3 of 3  The camera student, alone and distilled, side by side")
    distilling = msgspec.structs.replace(distilling, teacher=teacher, teacher_cache=out / "teacher-cache")
    with _side_by_side(alone, distilling) as jobs:
        if not options.from_scratch:
            evaluate_anything(Console(quiet=True), Evaluate(teacher, root, out=out / "teacher", workers=0))
        runs = [job.result() for job in jobs]
    models = []
    for part, path in zip(parts, (teacher, *runs), strict=True):
        loaded = LoadedDetector.load(weights_of(path, "last"))
        shipped = path == Path(TEACHER)
        folder = out / "teacher" if shipped else evaluation_folder(loaded.path)
        facts = {
            "name": part.name,
            "colour": part.colour,
            "loaded": loaded,
            "run": None if shipped else RunFolder(path),
        }
        models.append(ReportedModel.read(folder, index, split_names(index.version)[1], **facts))
    gain = gain_over_scenes(models[0].ground_truth, models[2].detections, models[1].detections)
    rows = result_rows(models, gain)
    lead = QUICK_NOTE if quick else summary(index, gain, options.from_scratch)
    report = write_report(models, rows, lead, out, photographs)
    table = results_table(rows)
    write_atomically(out / "results.json", table.to_json() + "\n")
    console.rule()
    console.print(table.to_rich(console.width))
    console.print(lead)
    console.print(f"\nOpen {report}  ({time.monotonic() - began:.0f} s)", style="bold")
    return report


def adapted(part: _Part, quick: bool, from_scratch: bool) -> _Part:
    """The part with the settings of this kind of demo."""
    sets = () if from_scratch else part.sets
    return part._replace(sets=(*(each for each in sets if not each.startswith("training.")), *QUICK) if quick else sets)


def _photographs(quick: bool) -> SyntheticConfig:
    """The first validation scenes of the world again, photographed in more pixels."""
    world = replace(TINY, key_frames=1) if quick else replace(DEMO, val_scenes=PHOTO_SCENES)
    size: dict[str, Any] = {"image_width": PHOTO_WIDTH, "image_height": PHOTO_WIDTH * 9 // 16}
    return replace(world, name=f"{world.name}-photographs", train_scenes=0, **size)


def train_and_score(console: Console, options: Train) -> Path:
    """Train a recipe and evaluate it; returns its run folder."""
    run = start_training(console, options)
    evaluate_anything(console, Evaluate(run, workers=options.workers))
    return run


@contextmanager
def _side_by_side(*trainings: Train) -> Iterator[list[Future[Path]]]:
    """Run trainings at once, each on its share of the cores; small networks gain little from more threads."""
    threads = max(1, (os.cpu_count() or 1) // len(trainings))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(trainings), context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        yield [pool.submit(_in_own_process, msgspec.structs.replace(training, workers=0)) for training in trainings]


def _in_own_process(options: Train) -> Path:
    return train_and_score(Console(force_terminal=False, soft_wrap=True, highlight=False, markup=False), options)


def result_rows(models: list[ReportedModel], gain: Gain) -> list[ResultRow]:
    """The teacher, the student, and the distilled student with its gain over the student."""
    teacher, student, distilled = (
        ResultRow.from_metrics(m.name, m.metrics, is_teacher=m.colour == "teacher", steps=m.loaded.facts["step"])
        for m in models
    )
    distilled = distilled.gaining_over(student)
    distilled = replace(distilled, interval_mean_ap=gain.mean_ap_interval, interval_nd_score=gain.nd_score_interval)
    return [teacher, student, distilled]


QUICK_NOTE = "A tiny world and a handful of steps: these numbers only show that everything runs."


def summary(index: NuscenesIndex, gain: Gain, from_scratch: bool) -> str:
    """The result in words, and what it depends on."""
    shown = "distillation gains" if gain.mean_ap_interval[0] > 0 else "a gain is not shown: the interval holds zero"
    start = "random weights" if from_scratch else f"the image backbone {BACKBONE}"
    return (
        f"On {gain.scenes} validation scenes {shown}. Both students: {start}, the same samples and steps. The "
        "distilled one also starts from the teacher's task heads: a part of the gain (docs/demo.md measures it). "
        "Official nuScenes metrics; intervals: 95 %, bootstrap over validation scenes, one training seed. A synthetic "
        f"world of {len(index.scene_name)} scenes, not nuScenes."
    )


def write_report(models: list[ReportedModel], rows: list[ResultRow], lead: str, out: Path, photographs: Path) -> Path:
    """Write report.html with the table, drawings and loss curves of the three models."""
    distilled = rows[2]
    page = ReportPage("DualDistill on a synthetic world", lead, byline=time.strftime("%Y-%m-%d %H:%M"))
    for row in rows:
        page.highlight(f"{100 * (row.mean_ap or 0):.1f}", f"mAP, {row.name}")
    gained = f"{100 * (distilled.gain_mean_ap or 0):+z.1f}".replace("-", "−")
    page.highlight(gained, f"mAP gained by distillation, 95 % {written_interval(distilled.interval_mean_ap)}")
    page.section("Result").table(results_table(rows), "Scores on the validation scenes.")
    classes = class_table({model.name: model.metrics["mean_dist_aps"] for model in models})
    page.table(classes, "Average precision by class, percent.")
    dataset = all_sensors(models[2].loaded, photographs)
    add_scenes(page, models, dataset, samples=PHOTO_SCENES)
    add_training(page, models)
    add_facts(page, models)
    write_atomically(out / "report.html", page.html())
    return out / "report.html"
