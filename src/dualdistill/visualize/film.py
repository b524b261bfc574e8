"""Figures as pictures, and pictures as a film."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from dualdistill.errors import UserError
from dualdistill.visualize.palette import DARK

SUFFIXES = (".gif", ".webp")


def rendered(figure: Figure, dpi: float = 100) -> Image.Image:
    """The figure as RGB pixels."""
    canvas = FigureCanvasAgg(figure)
    before = figure.dpi
    figure.set_dpi(dpi)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    figure.set_dpi(before)
    return image


def beside(pictures: Sequence[Image.Image], height: int) -> Image.Image:
    """The pictures from left to right, all scaled to one height."""
    scaled = [p.resize((round(p.width * height / p.height), height), Image.Resampling.LANCZOS) for p in pictures]
    strip = Image.new("RGB", (sum(p.width for p in scaled), height), DARK.paper)
    left = 0
    for picture in scaled:
        strip.paste(picture, (left, 0))
        left += picture.width
    return strip


def require_film(path: Path) -> None:
    """Raise UserError for a name that is not one of a film that can be written."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"--video writes {' or '.join(SUFFIXES)}: expected a name that ends so, got {path.name}.")


def write_film(path: Path, frames: Sequence[Image.Image], *, rate: float) -> None:
    """An endless animation of at least one frame, `rate` a second; smaller ones are padded to the largest size. `path`
    ends in one of `SUFFIXES`."""
    require_film(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = max(frame.width for frame in frames), max(frame.height for frame in frames)
    borders = [(0, 0, width - frame.width, height - frame.height) for frame in frames]
    frames = [ImageOps.expand(frame, border, DARK.paper) for frame, border in zip(frames, borders, strict=True)]
    if path.suffix == ".gif":  # one palette for all frames: colours do not flicker, and the file is smaller
        palette = beside(frames, 120).quantize(255, method=Image.Quantize.MEDIANCUT)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    duration = round(1000 / rate)
    frames[0].save(path, save_all=True, append_images=list(frames[1:]), duration=duration, loop=0, quality=80)
