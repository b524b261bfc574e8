"""`visualize`: report.html and drawings of one run, of sections that `demo` shows too."""

from collections.abc import Iterator, Mapping
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
from dualdistill.commands.predict import photographs_of, points_of
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
class ReportedModel:
    """A trained detector of a report, with its run and what `evaluate` has written about it."""

    name: str
    colour: Colour
    loaded: LoadedDetector
    run: RunFolder | None
    """None for weights outside a run."""
    metrics: dict[str, Any]
    ground_truth: GroundTruth
    detections: Detections

    @classmethod
    def read(cls, folder: Path, index: NuscenesIndex, split: str, **model: Any) -> "ReportedModel":
        """The model with the evaluation of the split in `folder`. `model`: name, colour, loaded and run."""
        truth, detections, _ = read_results(folder / "results_nusc.json", index, split)
        metrics = read_scores(folder / "metrics.json")
        return cls(metrics=metrics, ground_truth=truth, detections=detections, **model)

    @cached_property
    def min_score(self) -> float:
        """Lowest score of the drawn boxes."""
        return balanced_score(self.ground_truth, self.detections)

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
    experiment, name = loaded.experiment, loaded.facts["recipe"]
    colour = "teacher" if experiment.role != "student" else "distilled" if experiment.distiller else "student"
    dataset = all_sensors(loaded, data, split)
    known = split or split_names(dataset.index.version)[1]
    model = ReportedModel.read(folder, dataset.index, known, name=name, colour=colour, loaded=loaded, run=run)
    page = ReportPage(name, f"Step {loaded.facts['step']}, evaluated on {split or 'the validation split'}.")
    table = results_table([ResultRow.from_metrics(name, metrics)])
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
    from_score = ", ".join(f"{model.min_score:.2f} ({model.name})" for model in models)
    page.section(
        "Scenes",
        "Samples spread evenly, not selected by hand. Annotations are green; detections are drawn from the score on "
        f"that has the best F1 on the validation split: {from_score}. Forward is up.",
    )
    forward: Forward = "y" if dataset.config.bev_frame == "lidar" else "x"
    for item in (round(i * (len(dataset) - 1) / max(1, count - 1)) for i in range(count)):
        batch = dataset[item]
        with torch.no_grad():
            outputs = {model.name: model.loaded.detector.to("cpu")(batch) for model in models}
        found = [(m, m.loaded.detector.detect(outputs[m.name], batch)[0]) for m in models]
        token = batch.meta[0].token
        page.heading(f"Sample {token[:8]}")
        photographs = photographs_of(dataset.index, batch)
        for what, figure, caption, form in (
            _cameras(batch, found, photographs),
            _bev(batch, found, forward, outputs[models[0].name].extent),
            *_maps(batch, outputs, forward),
        ):
            page.figure(figure, caption, **form)
            if drawings is not None:
                with draft(drawings / f"{token[:8]}-{what}.png") as temporary:
                    figure.savefig(temporary, dpi=100)
        if recording is not None:
            recording.add(token, points_of(batch), batch.cameras, _layers(batch, found, DARK))


Found = list[tuple[ReportedModel, Boxes]]
"""Detections in one sample by model."""
Drawing = tuple[str, Figure, str, dict[str, Any]]
"""A name, a figure, its caption, and its form on a page."""


def _layers(batch: Batch, found: Found, theme: Theme, *, filled: bool = False) -> list[BoxLayer]:
    truth = BoxLayer(name="annotations", boxes=batch.boxes[0], colour=theme.truth, filled=filled)
    return [truth, *(model.layer(boxes, theme) for model, boxes in found)]


def _cameras(batch: Batch, found: Found, photographs: Photographs) -> Drawing:
    """Several students side by side, on the cameras with most annotations; one detector on all cameras."""
    shown = [each for each in found if each[0].colour != "teacher"] or found
    panels = {each[0].name: _layers(batch, [each], DARK) for each in shown}
    caption = f"Photographs with annotations and the detections of {' and '.join(panels)}."
    if len(shown) > 1:
        counts = photographs.seen(batch.boxes[0])
        busiest = sorted(range(len(counts)), key=lambda camera: -counts[camera])[:SIDE_BY_SIDE]
        photographs = photographs.select(sorted(busiest))
        caption += " The cameras with most annotations."
    width = max(min(photographs.images.shape[-1], 800), 420)
    form = {"alt": "Camera images with boxes", "encoding": "jpeg", "dpi": 100}
    return "cameras", draw_cameras(photographs, panels, image_width=width), caption, form


def _bev(batch: Batch, found: Found, forward: Forward, extent: Extent) -> Drawing:
    def drawn(theme: Theme) -> Figure:
        panels = {each[0].name: _layers(batch, [each], theme, filled=True) for each in found}
        return draw_bev(points_of(batch), panels, extent=extent, theme=theme, forward=forward, panel_inches=4.4)

    caption = "Bird's-eye view: LiDAR points, annotations and detections."
    return "bev", drawn(LIGHT), caption, {"alt": "Boxes from above", "dark": drawn(DARK), "dpi": 100}


def _maps(batch: Batch, outputs: Mapping[str, BevOutput], forward: Forward) -> Iterator[Drawing]:
    """BEV features, and depth of the front cameras where a model has any."""
    features = {name: output.neck[0] for name, output in outputs.items()}
    extent = next(iter(outputs.values())).extent
    figure = draw_features(features, batch.boxes[0], extent=extent, forward=forward)
    caption = "Mean magnitude of the BEV features before the head; annotations outlined."
    yield "features", figure, caption, {"alt": "BEV feature maps side by side", "dpi": 90}
    depths = {name: likely_depth(o.camera)[0, :3] for name, o in outputs.items() if o.camera is not None}
    if depths and batch.cameras is not None:
        measured = {"LiDAR": batch.depth[0, :3]} if batch.depth is not None else {}
        caption = (
            "Front cameras as the network gets them, the depth that the LiDAR measured in each cell of the image "
            "features (black: none), and each student's most likely depth."
        )
        figure = draw_depth(CAMERAS[:3], batch.cameras.images[0, 0, :3], measured | depths)
        yield "depth", figure, caption, {"alt": "Depth maps", "dpi": 90}


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
