"""`visualize`: report.html and drawings of one run, of sections that `demo` shows too."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console

from dualdistill import hub, zoo
from dualdistill.commands.evaluate import evaluate_anything
from dualdistill.commands.options.training import Evaluate, Visualize
from dualdistill.commands.samples import photographs_of
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.evaluate.metrics import balanced_score
from dualdistill.evaluate.records import Detections, GroundTruth
from dualdistill.evaluate.scoring import read_results
from dualdistill.files import draft, write_atomically
from dualdistill.report.page import ReportPage
from dualdistill.report.scores import ResultRow, results_table
from dualdistill.structures import CAMERAS, Batch, BevOutput, Boxes
from dualdistill.train.assemble import open_dataset, split_names
from dualdistill.train.loaded_detector import LoadedDetector, weights_of
from dualdistill.train.metrics import read_metrics
from dualdistill.train.run_folder import RunFolder, read_scores
from dualdistill.visualize.bev import Extent, Forward, draw_bev, draw_features
from dualdistill.visualize.cameras import Photographs, draw_cameras, draw_depth, likely_depth
from dualdistill.visualize.curves import draw_curves, loss_names
from dualdistill.visualize.palette import DARK, LIGHT, BoxLayer, Theme
from dualdistill.visualize.recording import Recording, require_rerun

Colour = str
"""Field of `Theme`: "teacher", "student" or "distilled"."""

SIDE_BY_SIDE = 3
"""Cameras of a sample that are shown of several students."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """An evaluation that was written to a folder, with what it was made of."""

    metrics: dict[str, Any]
    ground_truth: GroundTruth
    detections: Detections

    @classmethod
    def read(cls, folder: Path, index: NuscenesIndex, split: str) -> "Scored":
        """The metrics and results that `evaluate` has written for this split."""
        truth, detections, _ = read_results(folder / "results_nusc.json", index, split)
        return cls(metrics=read_scores(folder / "metrics.json"), ground_truth=truth, detections=detections)


@dataclass(frozen=True, kw_only=True)
class ReportedModel:
    """A trained detector of a report, with its run and evaluation."""

    name: str
    colour: Colour
    loaded: LoadedDetector
    run: RunFolder | None
    """None for weights outside a run."""
    scored: Scored

    @cached_property
    def min_score(self) -> float:
        """Lowest score of the drawn boxes."""
        return balanced_score(self.scored.ground_truth, self.scored.detections)

    def layer(self, boxes: Boxes, theme: Theme) -> BoxLayer:
        """Its detections in a drawing."""
        return BoxLayer(name=self.name, boxes=boxes, colour=getattr(theme, self.colour), min_score=self.min_score)


def visualize_run(console: Console, options: Visualize) -> Path:
    """Evaluate a checkpoint and draw its detections; returns the path of report.html, beside its metrics.

    The drawings on the page are also written as PNG files, into drawings/; with `rerun` a recording too. Raises
    UserError if it is no run, and, with `rerun`, where that package is not installed.
    """
    data, split, rerun = options.data, options.split, options.rerun
    run = RunFolder.open(options.run)
    weights = weights_of(options.run, options.checkpoint)
    folder = run.evaluation(weights.parent.name)
    if rerun:
        require_rerun()  # before the evaluation, which may take long
    loaded = LoadedDetector.load(weights)
    metrics = evaluate_anything(console, Evaluate(weights, data, split=split))
    experiment = loaded.experiment
    colour = "teacher" if experiment.role != "student" else "distilled" if experiment.distiller else "student"
    dataset = all_sensors(loaded, data, split)
    scored = Scored.read(folder, dataset.index, split or split_names(dataset.index.version)[1])
    model = ReportedModel(name=loaded.facts["recipe"], colour=colour, loaded=loaded, run=run, scored=scored)
    page = ReportPage(model.name, f"Step {loaded.facts['step']}, evaluated on {split or 'the validation split'}.")
    table = results_table([ResultRow.from_metrics(model.name, metrics)])
    page.section("Result").table(table, "Scores on the split named above.")
    add_training(page, [model])
    with Recording(folder / "recording.rrd") if rerun else nullcontext() as recording:
        add_scenes(page, [model], dataset, options.samples, drawings=folder / "drawings", recording=recording)
    add_facts(page, [model])
    written = folder / "report.html"
    write_atomically(written, page.html())
    console.print(f"wrote {written}, and its drawings of samples in {folder / 'drawings'}")
    if rerun:
        console.print(f"wrote {folder / 'recording.rrd'}: open it with `rerun {folder / 'recording.rrd'}`")
    return written


def all_sensors(loaded: LoadedDetector, data: Path | None = None, split: str | None = None) -> NuscenesDataset:
    """The samples of a split with images and points, whichever of them the detector reads."""
    index = loaded.index(data, None)
    seen = replace(loaded.experiment.data, cameras=True, points=True, depth=True, object_sampling=None)
    experiment = replace(loaded.experiment, data=seen)
    return open_dataset(
        experiment, index, split=split if split is not None else split_names(index.version)[1], training=False, seed=0
    )


def add_training(page: ReportPage, models: list[ReportedModel]) -> None:
    """A section with the loss curves of all runs on the same axes."""
    records = {model.name: read_metrics(model.run.metrics) for model in models if model.run is not None}
    if not loss_names(records):
        page.section("Training", "No losses are recorded: metrics.jsonl is missing or cannot be read.")
        return
    page.section("Training", "Unweighted losses of each step, smoothed; raw values in the background.")
    page.figure(draw_curves(records), "Training losses.", alt="Loss curves of all runs", dpi=110)


def add_scenes(
    page: ReportPage,
    models: list[ReportedModel],
    dataset: NuscenesDataset,
    samples: int,
    *,
    drawings: Path | None = None,
    recording: Recording | None = None,
) -> None:
    """A section with photographs, BEV, feature and depth maps of samples spread evenly over a data set. `drawings`:
    folder for a PNG file of each drawing; `recording`: one to which each sample is added."""
    count = min(samples, len(dataset))
    chosen = [round(i * (len(dataset) - 1) / max(1, count - 1)) for i in range(count)]
    from_score = ", ".join(f"{model.min_score:.2f} ({model.name})" for model in models)
    page.section(
        "Scenes",
        "Samples spread evenly, not selected by hand. Annotations are green; detections are drawn from the score on "
        f"that has the best F1 on the validation split: {from_score}. Forward is up.",
    )
    for item in chosen:
        batch = dataset[item]
        with torch.no_grad():
            outputs = {model.name: model.loaded.detector.to("cpu")(batch) for model in models}
        found = {model.name: model.loaded.detector.detect(outputs[model.name], batch)[0] for model in models}
        token = batch.meta[0].token
        page.heading(f"Sample {token[:8]}")
        forward: Forward = "y" if dataset.config.bev_frame == "lidar" else "x"
        assert batch.cameras is not None
        figures = {
            "cameras": _add_cameras(page, models, batch, found, photographs_of(dataset.index, batch.cameras, token)),
            "bev": _add_bev(page, models, batch, found, forward, outputs[models[0].name].extent),
            "features": _add_features(page, outputs, batch.boxes[0], forward),
            "depth": _add_depth(page, outputs, batch),
        }
        if drawings is not None:
            for what, figure in figures.items():
                if figure is not None:
                    with draft(drawings / f"{token[:8]}-{what}.png") as temporary:
                        figure.savefig(temporary, dpi=100)
        if recording is not None:
            truth = BoxLayer(name="annotations", boxes=batch.boxes[0], colour=DARK.truth)
            layers = [truth, *(model.layer(found[model.name], DARK) for model in models)]
            points = batch.points.features if batch.points is not None else None
            recording.add(token, points, batch.cameras, layers)


def _add_bev(
    page: ReportPage,
    models: list[ReportedModel],
    batch: Batch,
    found: Mapping[str, Boxes],
    forward: Forward,
    extent: Extent,
) -> Figure:
    points = batch.points.features if batch.points is not None else None

    def drawn(theme: Theme) -> Figure:
        truth = BoxLayer(name="annotations", boxes=batch.boxes[0], colour=theme.truth, filled=True)
        panels = {model.name: [truth, model.layer(found[model.name], theme)] for model in models}
        return draw_bev(points, panels, extent=extent, theme=theme, forward=forward, panel_inches=4.4)

    caption, light = "Bird's-eye view: LiDAR points, annotations and detections.", drawn(LIGHT)
    page.figure(light, caption, alt="Boxes from above", dark=drawn(DARK), dpi=100)
    return light


def _add_cameras(
    page: ReportPage, models: list[ReportedModel], batch: Batch, found: Mapping[str, Boxes], photographs: Photographs
) -> Figure:
    """Several students side by side, on the cameras with most annotations; one detector on all cameras."""
    shown = [model for model in models if model.colour != "teacher"] or models
    truth = BoxLayer(name="annotations", boxes=batch.boxes[0], colour=DARK.truth)
    panels = {model.name: [truth, model.layer(found[model.name], DARK)] for model in shown}
    if len(shown) > 1:
        counts = photographs.seen(batch.boxes[0])
        busiest = sorted(range(len(counts)), key=lambda camera: -counts[camera])[:SIDE_BY_SIDE]
        photographs = photographs.select(sorted(busiest))
    caption = f"Photographs with annotations and the detections of {' and '.join(panels)}."
    if len(shown) > 1:
        caption += " The cameras with most annotations."
    width = min(photographs.images.shape[-1], 800)
    figure = draw_cameras(photographs, panels, image_width=max(width, 420))
    page.figure(figure, caption, alt="Camera images with boxes", encoding="jpeg", dpi=100)
    return figure


def _add_features(page: ReportPage, outputs: Mapping[str, BevOutput], boxes: Boxes, forward: Forward) -> Figure:
    maps = {name: output.neck[0] for name, output in outputs.items()}
    figure = draw_features(maps, boxes, extent=next(iter(outputs.values())).extent, forward=forward)
    caption = "Mean magnitude of the BEV features before the head; annotations outlined."
    page.figure(figure, caption, alt="BEV feature maps side by side", dpi=90)
    return figure


def _add_depth(page: ReportPage, outputs: Mapping[str, BevOutput], batch: Batch) -> Figure | None:
    """Depth of the front cameras; None where no model has any."""
    maps = {name: likely_depth(o.camera)[0, :3] for name, o in outputs.items() if o.camera is not None}
    if not maps or batch.cameras is None:
        return None
    measured = {"LiDAR": batch.depth[0, :3]} if batch.depth is not None else {}
    figure = draw_depth(CAMERAS[:3], batch.cameras.images[0, 0, :3], measured | maps)
    page.figure(
        figure,
        "Front cameras as the network gets them, the depth that the LiDAR measured in each cell of the image features "
        "(black: none), and each student's most likely depth.",
        alt="Depth maps",
        dpi=90,
    )
    return figure


def add_facts(page: ReportPage, models: list[ReportedModel]) -> None:
    """A section with recipe, seed, data and weights of each model, so that it can be repeated."""
    page.section("Settings")
    for model in models:
        facts = model.loaded.facts
        overrides = model.run.experiment["overrides"] if model.run else zoo.card(model.loaded.path.stem).settings
        page.heading(model.name)
        page.facts(
            {
                "recipe": facts["recipe"],
                "changed": ", ".join(overrides) or "nothing",
                "seed": facts["seed"],
                "steps": facts["step"],
                "parameters": f"{sum(p.numel() for p in model.loaded.detector.parameters()):,}",
                "data": f"{facts['data']['version']}, trained on {facts['data']['split']}",
                "weights": hub.name_of(model.loaded.path) or str(model.loaded.path),
            }
        )
