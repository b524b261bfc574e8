"""Depth maps of camera students beside the depth that the LiDAR measured."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from dualdistill.structures import CameraOutput
from dualdistill.visualize.cameras import label, readable
from dualdistill.visualize.palette import DARK

_NO_RETURN = "#101216"
_FURTHEST = 60
"""Depth at the end of the scale, metres."""


def likely_depth(output: CameraOutput) -> Float[Tensor, "batch cam h w"]:
    """Depth of the most probable bin of each cell, metres."""
    return output.depths[output.depth_logits.argmax(dim=2)]


def draw_depth(
    names: tuple[str, ...],
    images: UInt8[Tensor, "cam 3 _ _"],
    maps: Mapping[str, Float[Tensor, "cam h w"]],
    *,
    image_width: int = 420,
) -> Figure:
    """The images, and below each a row of depth maps a source, on one scale.

    Args:
        images: As the network gets them; every map covers all of an image.
        maps: Metres along the optical axis by source; 0 where a cell has none.
    """
    count, _, height, width = images.shape
    row = image_width * height / width
    left, bottom = 136, 44
    total = (left + count * (image_width + 4), (len(maps) + 1) * (row + 4) + bottom)
    figure = Figure(figsize=(total[0] / 100, total[1] / 100), dpi=100, facecolor=DARK.paper)
    shown = [("image", images.permute(0, 2, 3, 1)), *maps.items()]
    for i, (title, pictures) in enumerate(shown):
        top = 1 - (i * (row + 4) + row) / total[1]
        figure.text(8 / total[0], top + row / 2 / total[1], title, color=DARK.ink, fontsize=9, va="center", wrap=True)
        for camera in range(count):
            place = ((left + camera * (image_width + 4)) / total[0], top, image_width / total[0], row / total[1])
            axes = figure.add_axes(place, xticks=[], yticks=[], facecolor=_NO_RETURN)
            axes.spines[:].set_visible(False)
            if not i:
                axes.imshow(pictures[camera].cpu().numpy(), aspect="auto")
                label(axes, readable(names[camera]))
                continue
            depth = torch.where(pictures[camera] > 0, pictures[camera], torch.nan).cpu().numpy()
            last = axes.imshow(depth, cmap="turbo_r", vmin=0, vmax=_FURTHEST, aspect="auto", interpolation="nearest")
    bar = figure.colorbar(
        last,
        cax=figure.add_axes((left / total[0], 26 / total[1], 260 / total[0], 9 / total[1])),
        orientation="horizontal",
    )
    bar.outline.set_visible(False)
    bar.set_ticks([0, _FURTHEST / 2, _FURTHEST], labels=["0", f"{_FURTHEST / 2:g}", f"{_FURTHEST} m"])
    bar.ax.tick_params(colors=DARK.muted, labelsize=8, length=0)
    return figure
