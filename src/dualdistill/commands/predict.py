"""`dualdistill predict`: detections in one sample of a data root, or in the user's own images."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from dualdistill.commands.options.deployment import Predict
from dualdistill.data.images import stored_image
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.deploy.calibration import Rig
from dualdistill.errors import UserError
from dualdistill.evaluate.to_global import detect
from dualdistill.files import draft
from dualdistill.report.table import Column, Table, Value
from dualdistill.structures import CLASSES, Batch, Boxes
from dualdistill.train.assemble import split_names
from dualdistill.train.loaded_detector import LoadedDetector, naming, weights_of
from dualdistill.visualize.bev import Forward, draw_bev
from dualdistill.visualize.cameras import Photographs, draw_cameras
from dualdistill.visualize.film import beside, rendered, require_film, write_film
from dualdistill.visualize.palette import DARK, BoxLayer

Moment = tuple[Batch, Photographs | None]
"""One sample as a batch of one, and its images at their own size."""
Panels = Mapping[str, Sequence[BoxLayer]]

SHOWN_ROWS = 25
"""Boxes in the printed table; the JSON has them all."""
SHOWN_SCORE = 0.2
"""Lowest drawn score, unless one is given: a detector has hundreds of boxes."""
FILM_HEIGHT = 400
"""Pixels of a film's frames."""
FILM_RATE = 4.0
"""Frames a second of a film: twice the speed of nuScenes' key frames."""


def predict_sample(console: Console, options: Predict) -> dict[str, Any]:
    """Detect, print the boxes, best first, and draw them; returns them as JSON values."""
    video, min_score = options.video, options.min_score
    if video is not None:
        require_film(video)
    trained = LoadedDetector.load(weights_of(options.checkpoint, "last"))
    own = options.calibration is not None
    moments = own_moments(console, trained, options) if own else moments_of_root(trained, options)
    frame, reach = trained.experiment.data.bev_frame, trained.experiment.data.box_reach
    forward: Forward = "y" if frame == "lidar" else "x"
    records: list[dict[str, Any]] = []
    frames = []
    for batch, photographs in moments if video is not None else islice(moments, 1):
        with torch.no_grad(), naming(trained):
            (boxes,) = detect(trained.detector, batch)
        boxes = boxes.best(min_score or 0.0)
        plain = plain_boxes(boxes)
        drawn = SHOWN_SCORE if min_score is None else min_score
        panels = {"": [BoxLayer(name="detections", boxes=boxes, min_score=drawn)]}
        if not records:
            title = f"{trained.facts['recipe']}, step {trained.facts['step']}, {frame} frame"
            console.print(boxes_table(plain, title).to_rich(console.width))
            if (left := len(boxes) - SHOWN_ROWS) > 0:
                console.print(f"… and {left} more; --min-score hides low scores, --json has them all")
            if options.picture is not None:
                for path in draw(options.picture, batch, panels, photographs, forward):
                    console.print(f"wrote {path}")
        records.append({"sample": batch.meta[0].token or None, "frame": frame, "boxes": plain})
        if video is not None:
            seen = [] if photographs is None else [rendered(draw_cameras(photographs, panels))]
            extent = (-reach, -reach, reach, reach)
            above = rendered(draw_bev(points_of(batch), panels, extent=extent, forward=forward, theme=DARK))
            frames.append(beside([*seen, above], FILM_HEIGHT))
    if video is None:
        return records[0]
    write_film(video, frames, rate=FILM_RATE)
    console.print(f"wrote {video}: {len(frames)} frames")
    return {"frames": records}


def moments_of_root(trained: LoadedDetector, options: Predict) -> Iterator[Moment]:
    """A sample of a root, or for a film all key frames of its scene."""
    index = trained.index(options.data, options.version)
    position = position_of(index, options.sample or "0", options.split)
    scene = np.flatnonzero(index.sample_scene == index.sample_scene[position]).tolist()
    for each in [position] if options.video is None else scene:
        batch = read_sample(trained, index, index.sample_token[each], options.split)
        yield batch, None if batch.cameras is None else photographs_of(index, batch)


def own_moments(console: Console, trained: LoadedDetector, options: Predict) -> Iterator[Moment]:
    """The user's images, moment by moment."""
    if trained.experiment.role == "teacher":
        raise UserError(f"{trained.path} holds a LiDAR teacher, which takes no images. Give --data ROOT.")
    assert options.calibration is not None
    config, images = trained.experiment.data, options.all_images
    rig = Rig.read(options.calibration, config.bev_frame)
    if config.num_frames == 2:
        console.print("This student takes two frames; the given images stand for both: speeds are not meaningful.")
    for files in rig.files(images[0]) if len(images) == 1 and images[0].is_dir() else [images]:
        batch = rig.batch(rig.load(files, config).expand(config.num_frames, -1, -1, -1, -1), config)
        stored = torch.stack([stored_image(path, rig.image_size) for path in files])
        assert batch.cameras is not None
        yield batch, Photographs.of(batch.cameras, stored, rig.names)


def position_of(index: NuscenesIndex, sample: str, split: str | None) -> int:
    """Position of a sample in the index, by token or by number within the split (None: validation). Raises UserError if
    there is no such sample."""
    if sample in index.sample_token:
        return list(index.sample_token).index(sample)
    split = split if split is not None else split_names(index.version)[1]
    positions = samples_of_split(index, split)
    if not (sample.isascii() and sample.isdigit()) or len(sample) > 9 or int(sample) >= len(positions):
        raise UserError(
            f"--sample {sample} is neither the token of a sample of {index.root} nor a number from 0 to "
            f"{len(positions) - 1} within split {split!r}."
        )
    return int(positions[int(sample)])


def read_sample(trained: LoadedDetector, index: NuscenesIndex, sample: str, split: str | None) -> Batch:
    """A sample, by token or number, with the sensors that the detector needs, as a batch of one."""
    return trained.dataset(index, split, np.array([position_of(index, sample, split)]))[0]


def photographs_of(index: NuscenesIndex, batch: Batch) -> Photographs:
    """The images of a sample at their own size, to draw on."""
    assert batch.cameras is not None
    rows = index.sample_cameras[position_of(index, batch.meta[0].token, None)]
    images = [stored_image(index.path(row), index.image_size(row)) for row in rows]
    return Photographs.of(batch.cameras, torch.stack(images))


def points_of(batch: Batch) -> Float[Tensor, "points chan"] | None:
    """LiDAR points to draw, if a sample has any."""
    return None if batch.points is None else batch.points.features


def plain_boxes(boxes: Boxes) -> list[dict[str, Any]]:
    """Boxes as JSON values: metres, radians (counter-clockwise from +x), metres a second."""
    assert boxes.score is not None
    columns = (boxes.label, boxes.score, boxes.center, boxes.size, boxes.yaw, boxes.velocity)
    names = ("class", "score", "center", "length_width_height", "yaw", "velocity")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [dict(zip(names, (CLASSES[label], *numbers), strict=True)) for label, *numbers in rows]


def boxes_table(boxes: list[dict[str, Any]], title: str) -> Table:
    """The best of some plain boxes: metres, degrees, metres a second."""
    columns = [Column(key="class", title="Class"), Column(key="score", title="Score", digits=2)]
    columns += [Column(key=key, title=key, digits=1) for key in ("x", "y", "z", "length", "width", "height")]
    columns += [Column(key="yaw", title="yaw °", digits=0), Column(key="speed", title="m/s", digits=1)]
    rows: list[dict[str, Value]] = []
    for box in boxes[:SHOWN_ROWS]:
        numbers = (*box["center"], *box["length_width_height"], math.degrees(box["yaw"]), math.hypot(*box["velocity"]))
        row = (box["class"].replace("_", " "), box["score"], *numbers)
        rows.append(dict(zip((column.key for column in columns), row, strict=True)))
    return Table(columns=tuple(columns), rows=tuple(rows), title=f"{len(boxes)} boxes: {title}")


def draw(
    picture: Path, batch: Batch, panels: Panels, photographs: Photographs | None, forward: Forward
) -> Iterator[Path]:
    """Draw the boxes from above, and in the photographs at their own size (NAME-cameras.png); yields the files."""
    figures = [(picture, draw_bev(points_of(batch), panels, forward=forward), 120)]
    if photographs is not None:
        figures.append((picture.with_stem(f"{picture.stem}-cameras"), draw_cameras(photographs, panels), 100))
    for path, figure, dpi in figures:
        with draft(path) as temporary:
            figure.savefig(temporary, dpi=dpi)
        yield path
