"""Camera images with boxes: projection with edges clipped at the near plane, and the figure of six images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from torch import Tensor

from dualdistill.geometry.boxes import corners
from dualdistill.geometry.cameras import project
from dualdistill.geometry.transforms import transform
from dualdistill.structures import CAMERAS, Boxes
from dualdistill.visualize.layers import BoxLayer
from dualdistill.visualize.palette import DARK

NEAR = 0.2
"""Depth of the near plane, metres; everything closer to the camera or behind it is clipped."""

EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
"""Pairs of corners, in the order of `geometry.boxes.corners`."""

FRONT_FACE = (0, 1, 5, 4)
"""Corners around the front face of a box."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Projection from the BEV frame of a drawing to one camera image."""

    intrinsics: Float[Tensor, "3 3"]
    """Intrinsics of the original image, pixels."""
    augmented_from_image: Float[Tensor, "4 4"]
    """Transform of (u, v, depth, 1) from the original image to the drawn one."""
    camera_from_bev: Float[Tensor, "4 4"]

    def project(self, points_camera: Float[Tensor, "points 3"]) -> Float[Tensor, "points 2"]:
        """Pixels, in the drawn image, of points in front of the camera."""
        return transform(self.augmented_from_image, project(points_camera, self.intrinsics))[:, :2]


def visible_edges(
    boxes: Boxes, view: View, near: float = NEAR
) -> tuple[Float[Tensor, "boxes 12 2 2"], Bool[Tensor, "boxes 12"]]:
    """Both ends of every box edge, in pixels, and a mask of the edges with a part beyond the near plane.

    An edge that crosses the near plane ends on it. The ends of invisible edges are undefined.
    """
    corners_camera = _corners_camera(boxes, view)
    ends = corners_camera[:, torch.tensor(EDGES)]  # boxes edge end 3
    depth = ends[..., 2]
    visible = (depth >= near).any(dim=-1)
    step = depth.flip(-1) - depth
    share = torch.where(depth < near, (near - depth) / step, 0.0)
    share = torch.where(visible[..., None] & share.isfinite(), share, 0.0)
    ends = ends + share[..., None] * (ends.flip(-2) - ends)
    ends = torch.where(visible[..., None, None], ends, ends.new_tensor([0.0, 0.0, near]))
    return view.project(ends.flatten(0, -2)).unflatten(0, depth.shape), visible


def front_faces(boxes: Boxes, view: View, near: float = NEAR) -> list[Float[Tensor, "_ 2"]]:
    """Outline, in pixels, of the part of each front face beyond the near plane; empty where there is none."""
    faces = _corners_camera(boxes, view)[:, torch.tensor(FRONT_FACE)]
    return [view.project(_beyond(face, near)) for face in faces]


def _corners_camera(boxes: Boxes, view: View) -> Float[Tensor, "boxes 8 3"]:
    points = corners(boxes).to(view.camera_from_bev.dtype).flatten(0, 1)
    return transform(view.camera_from_bev, points).unflatten(0, (-1, 8))


def _beyond(polygon: Float[Tensor, "_ 3"], near: float) -> Float[Tensor, "_ 3"]:
    """The part of a convex polygon with depth >= near (Sutherland and Hodgman, one plane)."""
    kept = []
    for here, there in zip(polygon, polygon.roll(-1, dims=0), strict=True):
        if here[2] >= near:
            kept.append(here)
        if (here[2] >= near) != (there[2] >= near):
            kept.append(here + (near - here[2]) / (there[2] - here[2]) * (there - here))
    return torch.stack(kept) if kept else polygon.new_zeros(0, 3)


def draw_cameras(
    images: UInt8[Tensor, "cam 3 h w"],
    intrinsics: Float[Tensor, "cam 3 3"],
    augmented_from_image: Float[Tensor, "cam 4 4"],
    bev_from_camera: Float[Tensor, "cam 4 4"],
    layers: Sequence[BoxLayer],
    *,
    image_width: int | None = None,
) -> Figure:
    """The images of one sample, front row above back row, with the boxes of all layers, front faces tinted.

    The tensors are one sample and frame of `structures.Cameras`; boxes are in the BEV frame of `bev_from_camera`.

    Args:
        layers: First at the bottom.
        image_width: Width of each image in the figure, pixels at 100 dpi; None keeps their own, within 420 to 640.
    """
    count, _, height, width = images.shape
    if count != len(CAMERAS):
        raise ValueError(f"expected {len(CAMERAS)} images, in the order of CAMERAS, got {count}")
    drawn_width = image_width or min(max(width, 420), 640)
    drawn_height = drawn_width * height / width
    gap, legend_height = 4, 34
    columns, rows = 3, 2
    total_width = columns * drawn_width + (columns - 1) * gap
    total_height = rows * drawn_height + (rows - 1) * gap + legend_height
    figure = Figure(figsize=(total_width / 100, total_height / 100), dpi=100, facecolor=DARK.paper)
    for index, name in enumerate(CAMERAS):
        row, column = divmod(index, columns)
        axes = figure.add_axes((
            column * (drawn_width + gap) / total_width,
            1 - (row * (drawn_height + gap) + drawn_height) / total_height,
            drawn_width / total_width,
            drawn_height / total_height,
        ))  # fmt: skip
        axes.imshow(images[index].permute(1, 2, 0).cpu().numpy(), interpolation="auto")
        axes.set_axis_off()
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        view = View(
            intrinsics=intrinsics[index].cpu().double(),
            augmented_from_image=augmented_from_image[index].cpu().double(),
            camera_from_bev=torch.linalg.inv(bev_from_camera[index].cpu().double()),
        )
        for layer in layers:
            draw_layer(axes, layer, view, line_width=0.72 * drawn_width / 420)
        _label(axes, name.removeprefix("CAM_").replace("_", " ").lower())
    _draw_legend(figure, layers)
    return figure


def draw_layer(axes: Axes, layer: BoxLayer, view: View, *, line_width: float = 0.8) -> None:
    """Draw the boxes of one layer on an image; `line_width` is in points."""
    boxes = layer.shown.to("cpu")
    if not len(boxes):
        return
    segments, visible = visible_edges(boxes, view)
    rgba = [to_rgba(c, a) for c, a in zip(layer.colours(DARK), layer.opacities(), strict=True)]
    owner = visible.nonzero()[:, 0].tolist()
    axes.add_collection(
        LineCollection(
            list(segments[visible].numpy()),
            colors=[rgba[box] for box in owner],
            linewidths=line_width,
            capstyle="round",
        ),
        autolim=False,
    )
    faces = [(face.numpy(), colour) for face, colour in zip(front_faces(boxes, view), rgba, strict=True) if len(face)]
    axes.add_collection(
        PolyCollection(
            [face for face, _ in faces],
            facecolors=[(*colour[:3], 0.2 * colour[3]) for _, colour in faces],
            edgecolors="none",
        ),
        autolim=False,
    )


def _label(axes: Axes, text: str) -> None:
    axes.text(
        0.012,
        0.975,
        text,
        transform=axes.transAxes,
        va="top",
        ha="left",
        color="white",
        fontsize=8.5,
        bbox={"facecolor": (0, 0, 0, 0.55), "edgecolor": "none", "pad": 2.5},
    )


def _draw_legend(figure: Figure, layers: Sequence[BoxLayer]) -> None:
    """Draw the names in their colours along the lower edge."""
    entries = dict(entry for layer in layers for entry in layer.legend(DARK))
    x = 12 / figure.bbox.width
    for name, colour in entries.items():
        text = figure.text(x, 11 / figure.bbox.height, f"■ {name}", color=colour, fontsize=9, va="bottom")
        x = text.get_window_extent().x1 / figure.bbox.width + 18 / figure.bbox.width
