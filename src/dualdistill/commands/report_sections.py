"""Sections of the report pages that `visualize` and `demo` write."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dualdistill.data.dataset import NuscenesDataset
from dualdistill.errors import UserError
from dualdistill.files import draft
from dualdistill.report.page import ReportPage
from dualdistill.structures import Batch, Boxes
from dualdistill.train.assemble import open_dataset, split_names
from dualdistill.train.loaded_detector import LoadedDetector
from dualdistill.train.metrics import read_metrics
from dualdistill.train.run_folder import RunFolder
from dualdistill.visualize.bev import draw_bev_panels
from dualdistill.visualize.cameras import draw_cameras
from dualdistill.visualize.curves import draw_curves
from dualdistill.visualize.features import draw_features
from dualdistill.visualize.layers import BoxLayer
from dualdistill.visualize.palette import DARK, LIGHT, Theme
from dualdistill.visualize.recording import Recording

SHOWN_SCORE = 0.2
"""Lowest score of the drawn detections, of which a detector has hundreds."""

Colour = str
"""Field of `Theme`: "teacher", "student" or "distilled"."""


@dataclass(frozen=True, kw_only=True)
class ReportedModel:
    """A trained detector of a report, with its run and metrics."""

    name: str
    colour: Colour
    loaded: LoadedDetector
    run: RunFolder
    metrics: dict[str, Any]


def all_sensors(loaded: LoadedDetector, data: Path | None = None, split: str | None = None) -> NuscenesDataset:
    """The samples of a split with images and points, whichever of them the detector reads."""
    index = loaded.index(data, None)
    seen = replace(loaded.experiment.data, cameras=True, points=True, object_sampling=None)
    experiment = replace(loaded.experiment, data=seen)
    return open_dataset(
        experiment, index, split=split if split is not None else split_names(index.version)[1], training=False, seed=0
    )


def add_training(page: ReportPage, models: list[ReportedModel]) -> None:
    """A section with the loss curves of all runs on the same axes."""
    records = {model.name: read_metrics(model.run.metrics) for model in models}
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
    """A section with BEV, camera images and feature maps of samples spread evenly over the split.

    Args:
        drawings: Folder for a PNG file of each drawing.
        recording: Recording to which each sample is added.
    """
    if samples < 1:
        raise UserError(f"--samples must be at least 1, got {samples}.")
    count = min(samples, len(dataset))
    chosen = [round(i * (len(dataset) - 1) / max(1, count - 1)) for i in range(count)]
    page.section(
        "Scenes",
        "Samples spread evenly over the split, not selected by hand. Detections with a score of at least "
        f"{SHOWN_SCORE}; annotations filled. Forward is up.",
    )
    for item in chosen:
        batch = dataset[item]
        with torch.no_grad():
            outputs = {model.name: model.loaded.detector.to("cpu")(batch) for model in models}
        found = {model.name: model.loaded.detector.detect(outputs[model.name], batch)[0] for model in models}
        page.heading(f"Sample {batch.meta[0].token[:8]}")
        maps = {model.name: outputs[model.name].neck[0] for model in models}
        figures = {
            "bev": _add_bev(page, models, batch, found),
            "cameras": _add_cameras(page, models, batch, found),
            "features": _add_features(page, maps, batch.boxes[0], outputs[models[0].name].extent),
        }
        if drawings is not None:
            for what, figure in figures.items():
                with draft(drawings / f"{batch.meta[0].token[:8]}-{what}.png") as temporary:
                    figure.savefig(temporary, dpi=120)
        if recording is not None:
            truth = BoxLayer(name="annotations", boxes=batch.boxes[0], colour=DARK.truth)
            layers = [truth, *(_layer(model, found[model.name], DARK) for model in models)]
            points = batch.points.features if batch.points is not None else None
            recording.add(batch.meta[0].token, points, batch.cameras, layers)


def _add_bev(page: ReportPage, models: list[ReportedModel], batch: Batch, found: Mapping[str, Boxes]) -> Figure:
    points = batch.points.features if batch.points is not None else None

    def drawn(theme: Theme) -> Figure:
        truth = BoxLayer(name="annotations", boxes=batch.boxes[0], colour=theme.truth, filled=True)
        panels = {model.name: [truth, _layer(model, found[model.name], theme)] for model in models}
        return draw_bev_panels(points, panels, theme=theme)

    caption, light = "Bird's-eye view: LiDAR points, annotations and detections.", drawn(LIGHT)
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
    caption = f"Camera images as the network gets them, with annotations and the detections of {shown.name}."
    page.figure(figure, caption, alt="Six camera images with boxes", encoding="jpeg", dpi=100)
    return figure


def _add_features(
    page: ReportPage, maps: Mapping[str, Tensor], boxes: Boxes, extent: tuple[float, float, float, float]
) -> Figure:
    figure = draw_features(maps, boxes, extent=extent)
    caption = "Mean magnitude of the BEV features before the head; annotations outlined."
    page.figure(figure, caption, alt="BEV feature maps side by side", dpi=90)
    return figure


def _layer(model: ReportedModel, boxes: Boxes, theme: Theme) -> BoxLayer:
    return BoxLayer(name=model.name, boxes=boxes, colour=getattr(theme, model.colour), min_score=SHOWN_SCORE)


def add_facts(page: ReportPage, models: list[ReportedModel]) -> None:
    """A section with recipe, seed, data and weights of each model, so that it can be repeated."""
    page.section("Settings")
    for model in models:
        facts, record = model.loaded.facts, model.run.experiment
        page.heading(model.name)
        page.facts(
            {
                "recipe": facts["recipe"],
                "changed": ", ".join(record["overrides"]) or "nothing",
                "seed": facts["seed"],
                "steps": facts["step"],
                "parameters": f"{sum(p.numel() for p in model.loaded.detector.parameters()):,}",
                "data": f"{record['data']['version']}, trained on {record['data']['split']}",
                "weights": str(model.loaded.path),
            }
        )
