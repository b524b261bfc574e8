"""`dualdistill predict`: detections in one sample of a data root, or in the user's own images."""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from dualdistill.commands.options.deployment import Predict
from dualdistill.commands.samples import photographs_of, position_of, read_sample
from dualdistill.data.images import stored_image
from dualdistill.deploy.calibration import Rig
from dualdistill.errors import UserError
from dualdistill.evaluate.to_global import detect
from dualdistill.files import draft
from dualdistill.report.table import Column, Table, Value
from dualdistill.structures import CLASSES, Batch, Boxes
from dualdistill.train.loaded_detector import LoadedDetector, naming, weights_of
from dualdistill.visualize.bev import Forward, draw_bev
from dualdistill.visualize.cameras import Photographs, draw_cameras
from dualdistill.visualize.film import beside, rendered, require_film, write_film
from dualdistill.visualize.palette import DARK, BoxLayer

Moment = tuple[Batch, Photographs | None]
"""One sample as a batch of one, and its images at their own size."""

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
    if options.calibration is not None:
        moments = own_moments(console, trained, options.all_images, options.calibration)
    else:
        moments = moments_of_root(trained, options)
    reach = trained.experiment.data.box_reach
    extent = (-reach, -reach, reach, reach)
    records: list[dict[str, Any]] = []
    frames = []
    for batch, photographs in moments if video is not None else islice(moments, 1):
        with torch.no_grad(), naming(trained):
            (boxes,) = detect(trained.detector, batch)
        boxes = boxes.best(min_score or 0.0)
        layer = BoxLayer(name="detections", boxes=boxes, min_score=SHOWN_SCORE if min_score is None else min_score)
        forward: Forward = "y" if trained.experiment.data.bev_frame == "lidar" else "x"
        if not records:
            _show(console, boxes, trained)
            if options.picture is not None:
                for path in draw(options.picture, batch, layer, photographs, forward):
                    console.print(f"wrote {path}")
        records.append(
            {
                "sample": batch.meta[0].token or None,
                "frame": trained.experiment.data.bev_frame,
                "boxes": plain_boxes(boxes),
            }
        )
        if video is not None:
            seen = [] if photographs is None else [rendered(draw_cameras(photographs, {"": [layer]}))]
            above = rendered(draw_bev(_points(batch), {"": [layer]}, extent=extent, forward=forward, theme=DARK))
            frames.append(beside([*seen, above], FILM_HEIGHT))
    if video is None:
        return records[0]
    write_film(video, frames, rate=FILM_RATE)
    console.print(f"wrote {video}: {len(frames)} frames")
    return {"frames": records}


def _show(console: Console, boxes: Boxes, trained: LoadedDetector) -> None:
    frame = trained.experiment.data.bev_frame
    table = boxes_table(boxes, f"{trained.facts['recipe']}, step {trained.facts['step']}, {frame} frame")
    console.print(table.to_rich(console.width))
    if len(boxes) > SHOWN_ROWS:
        console.print(f"… and {len(boxes) - SHOWN_ROWS} more; --min-score hides low scores, --json has them all")


def moments_of_root(trained: LoadedDetector, options: Predict) -> Iterator[Moment]:
    """A sample of a root, or for a film all key frames of its scene."""
    index = trained.index(options.data, options.version)
    position = position_of(index, options.sample or "0", options.split)
    positions = [position]
    if options.video is not None:
        positions = np.flatnonzero(index.sample_scene == index.sample_scene[position]).tolist()
    for each in positions:
        batch = read_sample(trained, index, index.sample_token[each], options.split)
        photographs = None
        if batch.cameras is not None:
            photographs = photographs_of(index, batch.cameras, batch.meta[0].token)
        yield batch, photographs


def own_moments(console: Console, trained: LoadedDetector, images: list[Path], calibration: Path) -> Iterator[Moment]:
    """The user's images, moment by moment."""
    if trained.experiment.role == "teacher":
        raise UserError(f"{trained.path} holds a LiDAR teacher, which takes no images. Give --data ROOT.")
    config = trained.experiment.data
    rig = Rig.read(calibration, config.bev_frame)
    if config.num_frames == 2:
        console.print("This student takes two frames; the given images stand for both: speeds are not meaningful.")
    for files in rig.files(images[0]) if len(images) == 1 and images[0].is_dir() else [images]:
        batch = rig.batch(rig.load(files, config).expand(config.num_frames, -1, -1, -1, -1), config)
        stored = torch.stack([stored_image(path, rig.image_size) for path in files])
        assert batch.cameras is not None
        yield batch, Photographs.of(batch.cameras, stored, rig.names)


def plain_boxes(boxes: Boxes) -> list[dict[str, Any]]:
    """Boxes as JSON values: metres, radians (counter-clockwise from +x), metres a second."""
    assert boxes.score is not None
    columns = (boxes.label, boxes.score, boxes.center, boxes.size, boxes.yaw, boxes.velocity)
    names = ("class", "score", "center", "length_width_height", "yaw", "velocity")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [dict(zip(names, (CLASSES[label], *numbers), strict=True)) for label, *numbers in rows]


def boxes_table(boxes: Boxes, title: str) -> Table:
    """The best boxes: metres, degrees, metres a second."""
    columns = [Column(key="class", title="Class"), Column(key="score", title="Score", digits=2)]
    columns += [Column(key=key, title=key, digits=1) for key in ("x", "y", "z", "length", "width", "height")]
    columns += [Column(key="yaw", title="yaw °", digits=0), Column(key="speed", title="m/s", digits=1)]
    rows: list[dict[str, Value]] = []
    for box in plain_boxes(boxes)[:SHOWN_ROWS]:
        numbers = (*box["center"], *box["length_width_height"], math.degrees(box["yaw"]), math.hypot(*box["velocity"]))
        named = dict(zip((column.key for column in columns[2:]), numbers, strict=True))
        rows.append({"class": box["class"].replace("_", " "), "score": box["score"], **named})
    return Table(columns=tuple(columns), rows=tuple(rows), title=f"{len(boxes)} boxes: {title}")


def draw(picture: Path, batch: Batch, layer: BoxLayer, photographs: Photographs | None, forward: Forward) -> list[Path]:
    """The boxes from above, and in the photographs at their own size (NAME-cameras.png); returns the files."""
    with draft(picture) as temporary:
        draw_bev(_points(batch), {"": [layer]}, forward=forward).savefig(temporary, dpi=120)
    if photographs is None:
        return [picture]
    cameras = picture.with_name(f"{picture.stem}-cameras.png")
    with draft(cameras) as temporary:
        draw_cameras(photographs, {"": [layer]}).savefig(temporary, dpi=100)
    return [picture, cameras]


def _points(batch: Batch) -> Float[Tensor, "points chan"] | None:
    return None if batch.points is None else batch.points.features
