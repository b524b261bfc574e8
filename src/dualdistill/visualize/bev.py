"""Bird's-eye-view drawings: LiDAR points, range rings, boxes with their headings, and feature maps side by side."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Polygon
from matplotlib.patheffects import withStroke
from torch import Tensor

from dualdistill.geometry.boxes import bev_corners
from dualdistill.structures import Boxes
from dualdistill.visualize.palette import LIGHT, BoxLayer, Theme

Forward = Literal["y", "x"]
"""Axis of the BEV frame that points forwards, up in the picture: y in a LiDAR frame, x in an ego frame."""

Extent = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max, metres."""

EGO_LENGTH, EGO_WIDTH = 4.084, 1.73
"""Size of the nuScenes ego car (a Renault Zoe), metres."""


def draw_bev(
    points: Float[Tensor, "points chan"] | None,
    panels: Mapping[str, Sequence[BoxLayer]],
    *,
    extent: Extent = (-51.2, -51.2, 51.2, 51.2),
    theme: Theme = LIGHT,
    forward: Forward = "y",
    panel_inches: float = 7.0,
) -> Figure:
    """Bird's-eye views of one scene side by side under their titles, for example one panel per detector.

    Args:
        points: x, y, z (metres) and any further columns, in the frame of the boxes; None draws no points.
        panels: Layers by title, first at the bottom.
        extent: The drawn area.
    """
    left, bottom, right, top = _picture_extent(extent, forward)
    height = panel_inches * (top - bottom) / (right - left)
    legend = dict(entry for layers in panels.values() for layer in layers for entry in layer.legend(theme))
    titled = 0.35 if any(panels) else 0.0
    figure = Figure(
        figsize=(panel_inches * len(panels), height + titled + 0.35 * bool(legend)),
        facecolor=theme.paper,
        layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0.02),
    )
    for axes, (title, layers) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _prepare(axes, extent, forward, theme, title)
        if points is not None:
            _draw_points(axes, points, extent, forward, theme, dot=panel_inches / 10)
        _draw_ego(axes, theme)
        for order, layer in enumerate(layers):
            draw_layer(axes, layer, theme=theme, forward=forward, width=0.6 + panel_inches / 14, order=3 + order)
    if legend:
        _draw_legend(figure, [layer for layers in panels.values() for layer in layers], legend, theme)
    return figure


def draw_layer(
    axes: Axes, layer: BoxLayer, *, theme: Theme, forward: Forward = "y", width: float = 1.2, order: float = 3
) -> None:
    """Draw the outlines of a layer, with a tick from each centre through the front face."""
    boxes = layer.shown
    if not len(boxes):
        return
    outlines, ticks = _on_picture(bev_corners(boxes), forward), heading_ticks(boxes, forward)
    rgba = np.array([to_rgba(c, a) for c, a in zip(layer.colours(theme), layer.opacities(), strict=True)])
    closed = np.concatenate([outlines, outlines[:, :1]], axis=1)
    if layer.filled:
        width *= 0.6
        tints = rgba * [1, 1, 1, 0.3]
        axes.add_collection(PolyCollection(list(outlines), facecolors=tints, edgecolors="none", zorder=order))
    axes.add_collection(LineCollection(list(closed), colors=rgba, linewidths=width, zorder=order))
    axes.add_collection(LineCollection(list(ticks), colors=rgba, linewidths=width, zorder=order))


def heading_ticks(boxes: Boxes, forward: Forward = "y") -> Float[np.ndarray, "boxes 2 2"]:
    """Segments in picture coordinates, from each centre to a quarter length past the front face."""
    heading = torch.stack([boxes.yaw.cos(), boxes.yaw.sin()], dim=-1)
    start = boxes.center[:, :2]
    segments = torch.stack([start, start + 0.75 * boxes.size[:, :1] * heading], dim=1)
    return _on_picture(segments, forward)


def _on_picture(xy: Float[Tensor, "*batch 2"], forward: Forward) -> Float[np.ndarray, "*batch 2"]:
    """BEV coordinates rotated so that forwards is up."""
    xy = xy.detach().cpu()
    if forward == "x":
        xy = torch.stack([-xy[..., 1], xy[..., 0]], dim=-1)
    return xy.double().numpy()


def _picture_extent(extent: Extent, forward: Forward) -> Extent:
    x_min, y_min, x_max, y_max = extent
    return (-y_max, x_min, -y_min, x_max) if forward == "x" else extent


def _prepare(axes: Axes, extent: Extent, forward: Forward, theme: Theme, title: str) -> None:
    left, bottom, right, top = _picture_extent(extent, forward)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[], facecolor=theme.paper)
    axes.spines[:].set(color=theme.rule, linewidth=0.8)
    if title:
        axes.set_title(title, color=theme.ink, fontsize=11, loc="left", pad=6)
    reach = max(-left, right, -bottom, top)
    step = next((step for step in (5, 10, 20, 50) if reach / step <= 5.5), 100)
    for radius in range(step, int(1.5 * reach) + 1, step):
        axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor=theme.rule, linewidth=0.7, zorder=0))
        if radius < 0.97 * right:
            text = f"{radius} m" if radius == step else str(radius)
            axes.annotate(
                text,
                (radius, 0),
                color=theme.muted,
                fontsize=7,
                ha="center",
                va="center",
                zorder=20,
                bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 0.8, "alpha": 0.75},
            )


def _draw_points(axes: Axes, points: Tensor, extent: Extent, forward: Forward, theme: Theme, dot: float) -> None:
    """Draw points, coloured from `point_low` on the ground to `point_high` two metres above it."""
    x_min, y_min, x_max, y_max = extent
    x, y = points[:, 0], points[:, 1]
    inside = points[(x >= x_min) & (x < x_max) & (y >= y_min) & (y < y_max), :3].detach().cpu()
    if not len(inside):
        return
    height = inside[:, 2].double().numpy()
    ground = np.quantile(height, 0.1)
    shade = np.clip((height - ground) / 2.0, 0, 1)
    xy = _on_picture(inside[:, :2], forward)
    colours = LinearSegmentedColormap.from_list("height", [theme.point_low, theme.point_high])(shade)
    axes.scatter(xy[:, 0], xy[:, 1], s=dot, c=colours, linewidths=0, zorder=1, rasterized=True)


def _draw_ego(axes: Axes, theme: Theme) -> None:
    """Draw the ego car as an arrow head around its middle, where the LiDAR is (0.94 m in front of the rear axle)."""
    length, width = EGO_LENGTH / 2, EGO_WIDTH / 2
    shape = [(0, length), (width, -length), (0, -0.6 * length), (-width, -length)]
    axes.add_patch(Polygon(shape, closed=True, facecolor=theme.muted, edgecolor="none", zorder=2))


_LEGEND_INCHES = 1.6
"""Space for the longest class name."""


def _draw_legend(figure: Figure, layers: Sequence[BoxLayer], entries: dict[str, str], theme: Theme) -> None:
    filled = {layer.name for layer in layers if layer.filled}
    handles = [
        Patch(facecolor=to_rgba(colour, 0.3), edgecolor=colour, label=name)
        if name in filled
        else Line2D([], [], color=colour, linewidth=1.8, label=name)
        for name, colour in entries.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 6, max(1, int(figure.get_figwidth() / _LEGEND_INCHES))),
        frameon=False,
        fontsize=9,
        labelcolor=theme.ink,
        handlelength=1.6,
    )


_PANEL_INCHES = 3.6


def activity(features: Float[Tensor, "chan y x"]) -> Float[Tensor, "y x"]:
    """Mean absolute value over the channels."""
    return features.detach().float().abs().mean(dim=0)


def draw_features(
    maps: Mapping[str, Float[Tensor, "chan y x"]], boxes: Boxes | None = None, *, extent: Extent, forward: Forward = "y"
) -> Figure:
    """`activity` of each map under its name, each on its own perceptual colour scale.

    Scales end at the 99.5th percentile, so that single large values do not darken the rest.

    Args:
        maps: Maps of the same area; channels and resolution may differ.
        boxes: Outlined on every map.
        extent: x_min, y_min, x_max, y_max of every map, metres.
    """
    active = {name: activity(features).cpu() for name, features in maps.items()}
    ceilings = {name: float(torch.quantile(map_.flatten(), 0.995)) or 1e-12 for name, map_ in active.items()}
    left, bottom, right, top = _picture_extent(extent, forward)
    height = _PANEL_INCHES * (top - bottom) / (right - left)
    figure = Figure(
        figsize=(_PANEL_INCHES * len(maps), height + 0.6),
        facecolor=LIGHT.paper,
        layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0.02),
    )
    for axes, (name, map_) in zip(figure.subplots(1, len(maps), squeeze=False)[0], active.items(), strict=True):
        shown = map_.numpy() if forward == "y" else map_.numpy().T[:, ::-1]  # picture right is -y, picture up is x
        image = axes.imshow(
            shown, origin="lower", extent=(left, right, bottom, top), cmap="magma", vmin=0, vmax=ceilings[name],
            interpolation="nearest",
        )  # fmt: skip
        axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(name, color=LIGHT.ink, fontsize=11, loc="left", pad=6)
        outlined = [withStroke(linewidth=2, foreground="black")]
        axes.plot(0, 0, marker="+", color="white", markersize=7, path_effects=outlined)
        _draw_scale(figure, axes, image, ceilings[name])
        if boxes is not None:
            layer = BoxLayer(name="boxes", boxes=boxes, colour="white", fade=False)
            draw_layer(axes, layer, theme=LIGHT, forward=forward, width=0.7)
    return figure


def _draw_scale(figure: Figure, axes: Axes, image: AxesImage, ceiling: float) -> None:
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", fraction=0.03, pad=0.015, aspect=40)
    bar.outline.set_visible(False)
    bar.set_ticks([0, ceiling], labels=["0", f"{ceiling:.3g}"])
    bar.ax.tick_params(colors=LIGHT.muted, labelsize=7.5, length=0)
    low, high = bar.ax.get_xticklabels()
    low.set_horizontalalignment("left")
    high.set_horizontalalignment("right")
