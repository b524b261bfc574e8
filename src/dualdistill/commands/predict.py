"""`dualdistill predict`: detections in one sample of a data root, or in the user's own images."""

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from dualdistill.commands.samples import read_sample, require_data
from dualdistill.deploy.calibration import Rig
from dualdistill.errors import UserError
from dualdistill.evaluate.detect import detect
from dualdistill.files import draft
from dualdistill.structures import CAMERAS, CLASSES, Batch, Boxes
from dualdistill.train.loaded_detector import LoadedDetector, naming, weights_of
from dualdistill.visualize.bev import Forward, draw_bev
from dualdistill.visualize.cameras import draw_cameras
from dualdistill.visualize.layers import BoxLayer

SHOWN_ROWS = 25
"""Boxes in the printed table; the JSON has them all."""


def predict_sample(
    console: Console,
    checkpoint: Path,
    *,
    data: Path | None,
    sample: str,
    images: list[Path],
    calibration: Path | None,
    version: str | None = None,
    split: str | None = None,
    min_score: float = 0.0,
    picture: Path | None = None,
) -> dict[str, Any]:
    """Detect, print the boxes, best first, and draw them; returns them as JSON values."""
    require_data(data, calibration)
    if picture is not None and picture.suffix != ".png":
        raise UserError(f"--picture writes PNG: expected a name that ends in .png, got {picture.name}")
    if not 0 <= min_score <= 1:  # NaN is not
        raise UserError(f"--min-score must lie between 0 and 1, got {min_score:g}.")
    if bool(images) != (calibration is not None):
        raise UserError("Own images need both --images and --calibration FILE.json (docs/export.md shows the form).")
    trained = LoadedDetector.load(weights_of(checkpoint, "last"))
    if calibration is not None:
        batch = own_batch(console, trained, images, calibration)
    else:
        batch = read_sample(trained, trained.index(data, version), sample, split)
    with torch.no_grad(), naming(trained):
        (boxes,) = detect(trained.detector, batch)
    assert boxes.score is not None
    boxes = boxes.select(boxes.score >= min_score)
    boxes = boxes.select(boxes.score.argsort(descending=True, stable=True))  # type: ignore[union-attr]
    frame = trained.experiment.data.bev_frame
    record = {"sample": batch.meta[0].token or None, "frame": frame, "boxes": plain_boxes(boxes)}
    console.print(boxes_table(boxes, f"{trained.facts['recipe']}, step {trained.facts['step']}, {frame} frame"))
    if len(boxes) > SHOWN_ROWS:
        console.print(f"… and {len(boxes) - SHOWN_ROWS} more; --min-score hides low scores, --json has them all")
    if picture is not None:
        for path in draw(picture, batch, boxes, trained):
            console.print(f"wrote {path}")
    return record


def own_batch(console: Console, trained: LoadedDetector, images: list[Path], calibration: Path) -> Batch:
    """The user's images as one sample."""
    if trained.experiment.role == "teacher":
        raise UserError(f"{trained.path} holds a LiDAR teacher, which takes no images. Give --data ROOT.")
    config = trained.experiment.data
    rig = Rig.read(calibration, config.bev_frame)
    frames = rig.load(images, config)[None]
    if config.num_frames == 2:
        console.print("This student takes two frames; the given images stand for both: speeds are not meaningful.")
        frames = frames.expand(2, -1, -1, -1, -1)
    return rig.batch(frames, config)


def plain_boxes(boxes: Boxes) -> list[dict[str, Any]]:
    """Boxes as JSON values: metres, radians (counter-clockwise from +x), metres a second."""
    assert boxes.score is not None
    columns = (boxes.label, boxes.score, boxes.center, boxes.size, boxes.yaw, boxes.velocity)
    return [
        {
            "class": CLASSES[label],
            "score": score,
            "center": center,
            "length_width_height": size,
            "yaw": yaw,
            "velocity": velocity,
        }
        for label, score, center, size, yaw, velocity in zip(*(column.tolist() for column in columns), strict=True)
    ]


def boxes_table(boxes: Boxes, title: str) -> Table:
    """The best boxes, for a terminal."""
    table = Table(title=f"{len(boxes)} boxes: {title}", title_justify="left")
    for heading in ("class", "score", "x", "y", "z", "length", "width", "height", "yaw °", "speed m/s"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for box in plain_boxes(boxes)[:SHOWN_ROWS]:
        metres = [f"{value:.1f}" for value in (*box["center"], *box["length_width_height"])]
        yaw, speed = float(torch.tensor(box["yaw"]).rad2deg()), float(torch.tensor(box["velocity"]).norm())
        table.add_row(box["class"], f"{box['score']:.2f}", *metres, f"{yaw:.0f}", f"{speed:.1f}")
    return table


def draw(picture: Path, batch: Batch, boxes: Boxes, trained: LoadedDetector) -> list[Path]:
    """The boxes from above, and in the images of a nuScenes-like rig of six (NAME-cameras.png); returns the files."""
    layer = BoxLayer(name="detections", boxes=boxes)
    points = batch.points.features if batch.points is not None else None
    forward: Forward = "y" if trained.experiment.data.bev_frame == "lidar" else "x"
    with draft(picture) as temporary:
        draw_bev(points, [layer], forward=forward).savefig(temporary, dpi=120)
    cameras = batch.cameras
    if cameras is None or cameras.images.shape[2] != len(CAMERAS):
        return [picture]
    beside = picture.with_name(f"{picture.stem}-cameras.png")
    of_frame = (cameras.intrinsics[0, 0], cameras.augmented_from_image[0, 0], cameras.bev_from_camera[0, 0])
    with draft(beside) as temporary:
        draw_cameras(cameras.images[0, 0], *of_frame, [layer]).savefig(temporary, dpi=120)
    return [picture, beside]
