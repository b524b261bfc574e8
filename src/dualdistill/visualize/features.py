"""BEV feature maps side by side, to compare the activations of networks."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from torch import Tensor

from dualdistill.structures import Boxes
from dualdistill.visualize.bev import Extent, Forward
from dualdistill.visualize.bev import draw_layer as draw_bev_layer
from dualdistill.visualize.layers import BoxLayer
from dualdistill.visualize.palette import LIGHT, Theme


def activity(features: Float[Tensor, "chan y x"]) -> Float[Tensor, "y x"]:
    """Mean absolute value over the channels."""
    return features.detach().float().abs().mean(dim=0)


def draw_features(
    maps: Mapping[str, Float[Tensor, "chan y x"]],
    boxes: Boxes | None = None,
    *,
    extent: Extent,
    theme: Theme = LIGHT,
    forward: Forward = "y",
    panel_inches: float = 3.6,
) -> Figure:
    """`activity` of each map under its name, each on its own perceptual colour scale.

    Scales end at the 99.5th percentile, so that single large values do not darken the rest.

    Args:
        maps: Maps of the same area; channels and resolution may differ.
        boxes: Outlined on every map.
        extent: x_min, y_min, x_max, y_max of every map, metres.
    """
    if not maps:
        raise ValueError("a feature drawing needs at least one map")
    active = {name: activity(features).cpu() for name, features in maps.items()}
    ceilings = {name: float(torch.quantile(map_.flatten(), 0.995)) or 1e-12 for name, map_ in active.items()}
    x_min, y_min, x_max, y_max = extent
    ratio = (y_max - y_min) / (x_max - x_min)
    height = panel_inches * (ratio if forward == "y" else 1 / ratio)
    figure = Figure(
        figsize=(panel_inches * len(maps), height + 0.6),
        facecolor=theme.paper,
        layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0.02),
    )
    all_axes = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, (name, map_) in zip(all_axes, active.items(), strict=True):
        image = _show(axes, map_.numpy(), extent, forward, ceilings[name])
        _finish(figure, axes, image, name, ceilings[name], theme)
        if boxes is not None:
            layer = BoxLayer(name="boxes", boxes=boxes, colour="white", fade=False)
            draw_bev_layer(axes, layer, theme=theme, forward=forward, width=0.7)
    return figure


def _show(axes: Axes, map_: Float[np.ndarray, "y x"], extent: Extent, forward: Forward, ceiling: float) -> AxesImage:
    x_min, y_min, x_max, y_max = extent
    sides = (x_min, x_max, y_min, y_max)
    if forward == "x":  # picture right is -y, picture up is x
        map_, sides = map_.T[:, ::-1], (-y_max, -y_min, x_min, x_max)
    image = axes.imshow(map_, origin="lower", extent=sides, cmap="magma", vmin=0, vmax=ceiling, interpolation="nearest")
    axes.set(xlim=sides[:2], ylim=sides[2:], xticks=[], yticks=[])
    return image


def _finish(figure: Figure, axes: Axes, image: AxesImage, name: str, ceiling: float, theme: Theme) -> None:
    axes.spines[:].set_visible(False)
    axes.set_title(name, color=theme.ink, fontsize=11, loc="left", pad=6)
    outlined = [withStroke(linewidth=2, foreground="black")]
    axes.plot(0, 0, marker="+", color="white", markersize=7, path_effects=outlined)
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", fraction=0.03, pad=0.015, aspect=40)
    bar.outline.set_visible(False)
    bar.set_ticks([0, ceiling])
    bar.set_ticklabels(["0", f"{ceiling:.3g}"])
    bar.ax.tick_params(colors=theme.muted, labelsize=7.5, length=0)
    low, high = bar.ax.get_xticklabels()
    low.set_horizontalalignment("left")
    high.set_horizontalalignment("right")
