"""BEV feature maps side by side, to compare the activations of networks."""

from collections.abc import Mapping

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
from dualdistill.visualize.palette import LIGHT

_PANEL_INCHES = 3.6


def activity(features: Float[Tensor, "chan y x"]) -> Float[Tensor, "y x"]:
    """Mean absolute value over the channels."""
    return features.detach().float().abs().mean(dim=0)


def draw_features(
    maps: Mapping[str, Float[Tensor, "chan y x"]],
    boxes: Boxes | None = None,
    *,
    extent: Extent,
    forward: Forward = "y",
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
    height = _PANEL_INCHES * (ratio if forward == "y" else 1 / ratio)
    figure = Figure(
        figsize=(_PANEL_INCHES * len(maps), height + 0.6),
        facecolor=LIGHT.paper,
        layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0.02),
    )
    sides = (x_min, x_max, y_min, y_max) if forward == "y" else (-y_max, -y_min, x_min, x_max)
    for axes, (name, map_) in zip(figure.subplots(1, len(maps), squeeze=False)[0], active.items(), strict=True):
        shown = map_.numpy() if forward == "y" else map_.numpy().T[:, ::-1]  # picture right is -y, picture up is x
        image = axes.imshow(
            shown, origin="lower", extent=sides, cmap="magma", vmin=0, vmax=ceilings[name], interpolation="nearest"
        )
        axes.set(xlim=sides[:2], ylim=sides[2:], xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(name, color=LIGHT.ink, fontsize=11, loc="left", pad=6)
        outlined = [withStroke(linewidth=2, foreground="black")]
        axes.plot(0, 0, marker="+", color="white", markersize=7, path_effects=outlined)
        _draw_scale(figure, axes, image, ceilings[name])
        if boxes is not None:
            layer = BoxLayer(name="boxes", boxes=boxes, colour="white", fade=False)
            draw_bev_layer(axes, layer, theme=LIGHT, forward=forward, width=0.7)
    return figure


def _draw_scale(figure: Figure, axes: Axes, image: AxesImage, ceiling: float) -> None:
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", fraction=0.03, pad=0.015, aspect=40)
    bar.outline.set_visible(False)
    bar.set_ticks([0, ceiling], labels=["0", f"{ceiling:.3g}"])
    bar.ax.tick_params(colors=LIGHT.muted, labelsize=7.5, length=0)
    low, high = bar.ax.get_xticklabels()
    low.set_horizontalalignment("left")
    high.set_horizontalalignment("right")
