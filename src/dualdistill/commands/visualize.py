"""Pages and pictures of runs: what `visualize` writes, and the report of the demo."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

from dualdistill.commands.evaluate import LoadedDetector, evaluate_anything, weights_of
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.errors import UserError
from dualdistill.report.page import ReportPage
from dualdistill.report.scores import ResultRow, class_table, results_table
from dualdistill.structures import Batch, BevOutput, Boxes
from dualdistill.train.assemble import open_dataset, split_names
from dualdistill.train.run_folder import RunFolder
from dualdistill.visualize.bev import draw_bev_panels
from dualdistill.visualize.cameras import draw_cameras
from dualdistill.visualize.curves import draw_curves, read_records
from dualdistill.visualize.features import draw_features
from dualdistill.visualize.layers import BoxLayer
from dualdistill.visualize.palette import DARK, LIGHT, Theme
from dualdistill.visualize.recording import Recording, require_rerun

SHOWN_SCORE = 0.2
"""Detections that score less are not drawn: a detector offers hundreds."""

Colour = str
"""Name of a field of `Theme`: "teacher", "student" or "distilled"."""


@dataclass(frozen=True, kw_only=True)
class ReportedModel:
    """A trained detector in a report."""

    name: str
    colour: Colour
    trained: LoadedDetector
    run: RunFolder
    metrics: dict[str, Any]


def visualize_run(
    console: Console,
    path: Path,
    *,
    data: Path | None,
    samples: int,
    checkpoint: str,
    split: str | None,
    rerun: bool = False,
) -> Path:
    """Evaluate a checkpoint; write report.html beside its metrics, and the drawings on it as PNG files into
    drawings/.

    Args:
        rerun: Also write recording.rrd, for the viewer of rerun.

    Raises:
        UserError: for no run, or, with `rerun`, where that is not installed.
    """
    run = RunFolder.open(path)
    weights = weights_of(path, checkpoint)
    folder = run.evaluation(weights.parent.name)
    if rerun:
        require_rerun()  # before the evaluation, which may take long
    trained = LoadedDetector.load(weights)
    metrics = evaluate_anything(console, weights, data=data, split=split)
    colour = (
        "teacher"
        if trained.experiment.role != "student"
        else "distilled"
        if trained.experiment.distiller
        else "student"
    )
    model = ReportedModel(name=trained.facts["recipe"], colour=colour, trained=trained, run=run, metrics=metrics)
    page = ReportPage(model.name, f"Step {trained.facts['step']}, evaluated on {split or 'the validation split'}.")
    page.section("Result").table(
        results_table([ResultRow.from_metrics(model.name, metrics)]), "Scores on the split named above."
    )
    add_training(page, [model])
    dataset = viewing_dataset(model.trained, data, split)
    with Recording(folder / "recording.rrd") if rerun else nullcontext() as recording:
        add_scenes(page, [model], dataset, samples, drawings=folder / "drawings", recording=recording)
    add_facts(page, [model])
    written = page.write(folder / "report.html")
    console.print(f"wrote {written}, and its drawings of samples in {folder / 'drawings'}")
    if rerun:
        console.print(f"wrote {folder / 'recording.rrd'}: look at it with `rerun {folder / 'recording.rrd'}`")
    return written


def viewing_dataset(trained: LoadedDetector, data: Path | None = None, split: str | None = None) -> NuscenesDataset:
    """The samples of a split with images and points, whatever the detector itself looks at."""
    index = trained.index(data, None)
    seen = replace(trained.experiment.data, cameras=True, points=True, object_sampling=None)
    experiment = replace(trained.experiment, data=seen)
    return open_dataset(experiment, index, split=split or split_names(index.version)[1], training=False, seed=0)


def add_training(page: ReportPage, models: list[ReportedModel]) -> None:
    """Loss curves of all runs on the same axes."""
    records = {model.name: read_records(model.run.metrics) for model in models}
    page.section("Training", "Unweighted losses of each step, smoothed; raw values faint behind.")
    page.figure(draw_curves(records), "How the losses went.", alt="Loss curves of all runs", dpi=110)


def add_scenes(
    page: ReportPage,
    models: list[ReportedModel],
    dataset: NuscenesDataset,
    samples: int,
    *,
    drawings: Path | None = None,
    recording: Recording | None = None,
) -> None:
    """BEV, camera images and feature maps of samples spread evenly over the split.

    Args:
        drawings: Folder that also gets each drawing as a PNG file.
        recording: Also gets each sample.
    """
    if samples < 1:
        raise UserError(f"--samples must be at least 1, got {samples}.")
    count = min(samples, len(dataset))
    chosen = [round(i * (len(dataset) - 1) / max(1, count - 1)) for i in range(count)]
    page.section(
        "Scenes",
        f"Samples spread evenly over the split, none picked by hand. Detections that score at least {SHOWN_SCORE}; "
        "annotations filled. Ahead is up.",
    )
    for item in chosen:
        batch = dataset[item]
        outputs = {model.name: look(model.trained, batch) for model in models}
        found = {e.name: e.trained.detector.detect(outputs[e.name], batch)[0] for e in models}
        page.heading(f"Sample {batch.meta[0].token[:8]}")
        maps = {e.name: outputs[e.name].neck[0] for e in models}
        figures = {
            "bev": _add_bev(page, models, batch, found),
            "cameras": _add_cameras(page, models, batch, found),
            "features": _add_features(page, maps, batch.boxes[0], outputs[models[0].name].extent),
        }
        if drawings is not None:
            drawings.mkdir(parents=True, exist_ok=True)
            for what, figure in figures.items():
                figure.savefig(drawings / f"{batch.meta[0].token[:8]}-{what}.png", dpi=120)
        if recording is not None:
            truth = BoxLayer(name="annotations", boxes=batch.boxes[0], colour=DARK.truth)
            layers = [truth, *(_layer(e, found[e.name], DARK) for e in models)]
            points = batch.points.features if batch.points is not None else None
            recording.add(batch.meta[0].token, points, batch.cameras, layers)


def look(trained: LoadedDetector, batch: Batch) -> BevOutput:
    with torch.no_grad():
        return trained.detector.to("cpu").eval()(batch)


def _add_bev(page: ReportPage, models: list[ReportedModel], batch: Batch, found: Mapping[str, Boxes]) -> Figure:
    points = batch.points.features if batch.points is not None else None

    def drawn(theme: Theme) -> Figure:
        truth = BoxLayer(name="annotations", boxes=batch.boxes[0], colour=theme.truth, filled=True)
        panels = {e.name: [truth, _layer(e, found[e.name], theme)] for e in models}
        return draw_bev_panels(points, panels, theme=theme)

    caption, light = "From above: LiDAR points, annotations, detections.", drawn(LIGHT)
    page.figure(light, caption, alt="Boxes from above", dark=drawn(DARK), dpi=100)
    return light


def _add_cameras(page: ReportPage, models: list[ReportedModel], batch: Batch, found: Mapping[str, Boxes]) -> Figure:
    cameras, shown = batch.cameras, models[-1]
    assert cameras is not None
    truth = BoxLayer(name="annotations", boxes=batch.boxes[0], colour=DARK.truth)
    figure = draw_cameras(
        cameras.images[0, 0],
        cameras.intrinsics[0, 0],
        cameras.augmented_from_image[0, 0],
        cameras.bev_from_camera[0, 0],
        [truth, _layer(shown, found[shown.name], DARK)],
    )
    caption = f"What the cameras see, as the network sees it, with annotations and the boxes of {shown.name}."
    page.figure(figure, caption, alt="Six camera images with boxes", encoding="jpeg", dpi=100)
    return figure


def _add_features(
    page: ReportPage, maps: Mapping[str, Tensor], boxes: Boxes, extent: tuple[float, float, float, float]
) -> Figure:
    figure = draw_features(maps, boxes, extent=extent)
    page.figure(
        figure,
        "Mean magnitude of the BEV features before the head; annotations outlined.",
        alt="BEV feature maps side by side",
        dpi=90,
    )
    return figure


def _layer(model: ReportedModel, boxes: Boxes, theme: Theme) -> BoxLayer:
    return BoxLayer(name=model.name, boxes=boxes, colour=getattr(theme, model.colour), min_score=SHOWN_SCORE)


def add_classes(page: ReportPage, models: list[ReportedModel]) -> None:
    """AP of each class, averaged over the distance thresholds."""
    page.table(
        class_table({e.name: e.metrics["mean_dist_aps"] for e in models}),
        "Average precision by class, percent.",
    )


def add_facts(page: ReportPage, models: list[ReportedModel]) -> None:
    """What was run where, so that it can be repeated."""
    page.section("How it was made")
    for model in models:
        facts, record = model.trained.facts, model.run.experiment
        page.heading(model.name)
        page.facts(
            {
                "recipe": facts["recipe"],
                "changed": ", ".join(record["overrides"]) or "nothing",
                "seed": facts["seed"],
                "steps": facts["step"],
                "parameters": f"{sum(p.numel() for p in model.trained.detector.parameters()):,}",
                "data": f"{record['data']['version']}, trained on {record['data']['split']}",
                "weights": str(model.trained.path),
            }
        )
