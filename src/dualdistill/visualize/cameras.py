"""Camera images with boxes, edges clipped at the near plane, and depth maps of students beside the LiDAR's depth."""

import math
from collections.abc import Mapping, Sequence
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
from dualdistill.structures import CAMERAS, Boxes, CameraOutput, Cameras
from dualdistill.visualize.palette import DARK, BoxLayer

NEAR = 0.2
"""Depth of the near plane, metres; everything closer to the camera or behind it is clipped."""

EDGES = ((0, 1), (1, 5), (5, 4), (4, 0), (1, 2), (2, 3), (3, 0), (5, 6), (6, 7), (7, 4), (2, 6), (3, 7))
"""Pairs of corners, in the order of `geometry.boxes.corners`; the first four lead around the front face."""


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
    points = corners(boxes).to(view.camera_from_bev.dtype).flatten(0, 1)
    corners_camera = transform(view.camera_from_bev, points).unflatten(0, (-1, 8))
    ends = corners_camera[:, torch.tensor(EDGES)]  # boxes edge end 3
    depth = ends[..., 2]
    visible = (depth >= near).any(dim=-1)
    step = depth.flip(-1) - depth
    share = torch.where(depth < near, (near - depth) / step, 0.0)
    share = torch.where(visible[..., None] & share.isfinite(), share, 0.0)
    ends = ends + share[..., None] * (ends.flip(-2) - ends)
    ends = torch.where(visible[..., None, None], ends, ends.new_tensor([0.0, 0.0, near]))
    return view.project(ends.flatten(0, -2)).unflatten(0, depth.shape), visible


def front_faces(ends: Float[Tensor, "boxes 12 2 2"], visible: Bool[Tensor, "boxes 12"]) -> list[Float[Tensor, "_ 2"]]:
    """Outline, in pixels, of the part of each front face beyond the near plane, empty where there is none. Arguments as
    `visible_edges` returns them."""
    return [edges[seen].flatten(0, 1) for edges, seen in zip(ends[:, :4], visible[:, :4], strict=True)]


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """Camera images of one moment, of any number of cameras, with what projects boxes into them."""

    names: tuple[str, ...]
    images: UInt8[Tensor, "cam 3 h w"]
    """RGB, at any size."""
    views: tuple[View, ...]

    @classmethod
    def of(
        cls, cameras: Cameras, stored: UInt8[Tensor, "cam 3 h w"] | None = None, names: Sequence[str] = CAMERAS
    ) -> "Photographs":
        """The key frame of one sample. `stored`: the images as they are stored; None takes the network's, resized and
        cropped."""
        augmented = cameras.augmented_from_image[0, 0].cpu().double()
        if stored is not None:
            augmented = torch.eye(4, dtype=torch.float64).expand_as(augmented)
        intrinsics, poses = cameras.intrinsics[0, 0].cpu().double(), cameras.bev_from_camera[0, 0].cpu().double()
        views = (
            View(intrinsics=k, augmented_from_image=image, camera_from_bev=torch.linalg.inv(pose))
            for k, image, pose in zip(intrinsics, augmented, poses, strict=True)
        )
        images = cameras.images[0, 0] if stored is None else stored
        return cls(names=tuple(names), images=images, views=tuple(views))

    def select(self, chosen: Sequence[int]) -> "Photographs":
        """Some of the cameras, by position."""
        return Photographs(
            names=tuple(self.names[i] for i in chosen),
            images=self.images[list(chosen)],
            views=tuple(self.views[i] for i in chosen),
        )

    def seen(self, boxes: Boxes) -> list[int]:
        """Number of boxes whose centre lies in each image."""
        height, width = self.images.shape[-2:]
        counts = []
        for view in self.views:
            centers = transform(view.camera_from_bev, boxes.center.to(view.camera_from_bev.dtype))
            centers = centers[centers[:, 2] > NEAR]
            u, v = view.project(centers).unbind(dim=1)
            counts.append(int(((u >= 0) & (u < width) & (v >= 0) & (v < height)).sum()))
        return counts


def draw_cameras(
    photographs: Photographs, panels: Mapping[str, Sequence[BoxLayer]], *, image_width: int | None = None
) -> Figure:
    """The images with boxes, front faces tinted. One panel: all cameras in a grid. Several, such as one a detector:
    side by side, a column a panel and a row a camera.

    Args:
        panels: Layers by title, first at the bottom; boxes are in the BEV frame of the views.
        image_width: Width of each image in the figure, pixels at 100 dpi; None keeps their own.
    """
    count, _, height, width = photographs.images.shape
    columns = len(panels) if len(panels) > 1 else _columns(count)
    tiles = [(camera, title) for camera in range(count) for title in panels]
    rows = -(-len(tiles) // columns)
    drawn_width = image_width or width
    drawn_height = drawn_width * height / width
    gap, legend_height = 4, 34
    total_width = columns * drawn_width + (columns - 1) * gap
    total_height = rows * drawn_height + (rows - 1) * gap + legend_height
    figure = Figure(figsize=(total_width / 100, total_height / 100), dpi=100, facecolor=DARK.paper)
    for index, (camera, title) in enumerate(tiles):
        row, column = divmod(index, columns)
        axes = figure.add_axes((
            column * (drawn_width + gap) / total_width,
            1 - (row * (drawn_height + gap) + drawn_height) / total_height,
            drawn_width / total_width,
            drawn_height / total_height,
        ))  # fmt: skip
        axes.imshow(photographs.images[camera].permute(1, 2, 0).cpu().numpy(), interpolation="auto")
        axes.set_axis_off()
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        for layer in panels[title]:
            draw_layer(axes, layer, photographs.views[camera], line_width=0.72 * max(drawn_width / 420, 1))
        name = readable(photographs.names[camera])
        label(axes, f"{name}, {title}" if len(panels) > 1 else name)
    _draw_legend(figure, [layer for layers in panels.values() for layer in layers])
    return figure


def _columns(count: int) -> int:
    """Columns of a grid of so many pictures: up to three in a row, four as two by two."""
    return 2 if count == 4 else min(count, 3) if count <= 6 else math.ceil(math.sqrt(count))


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
    faces = front_faces(segments, visible)
    tinted = [(face.numpy(), colour) for face, colour in zip(faces, rgba, strict=True) if len(face)]
    axes.add_collection(
        PolyCollection(
            [face for face, _ in tinted],
            facecolors=[(*colour[:3], 0.2 * colour[3]) for _, colour in tinted],
            edgecolors="none",
        ),
        autolim=False,
    )


def readable(name: str) -> str:
    """The name of a camera for people: "front left" for CAM_FRONT_LEFT."""
    return name.removeprefix("CAM_").replace("_", " ").lower()


def label(axes: Axes, text: str) -> None:
    """A caption in the upper left corner of a picture."""
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
