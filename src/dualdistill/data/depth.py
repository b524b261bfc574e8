"""Depth labels of the cameras from one LiDAR sweep (docs/methods/bevdepth.md#depth-labels).

Two ways of gathering points into the cells of a feature map, metres along the optical axis, 0 where no point
fell:

- nearest: the pixel coordinate over the stride is *rounded*; the nearest point in range of each cell counts
  (DistillBEV, DualDistill);
- official: points are drawn into a map of the network image, the last one of a pixel wins; the smallest depth of each
  block of pixels counts, and a cell whose nearest point is out of range stays empty (the official BEVDepth).
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from dualdistill.geometry.boxes import points_in_boxes
from dualdistill.structures import Boxes

BORDER = 1.0
"""The official code drops points less than a pixel inside the stored image."""


def depth_labels(
    points: Float[Tensor, "*cam points 3"],
    camera_from_points: Float[Tensor, "cam 4 4"],
    intrinsics: Float[Tensor, "cam 3 3"],
    augmented_from_image: Float[Tensor, "cam 4 4"],
    *,
    stored_size: tuple[int, int],
    image_size: tuple[int, int],
    stride: int,
    depth_range: tuple[float, float],
    variant: Literal["nearest", "official"],
) -> Float[Tensor, "cam h w"]:
    """Depth of the LiDAR points seen in each cell of each camera's feature map.

    Args:
        points: Of all cameras, or those of each camera; NaN for none.
        camera_from_points: Through the world, ego motion between the exposures included.
        stored_size: Height and width the intrinsics refer to.
        image_size: Height and width of the network image.
        stride: Pixels of the network image per cell.
        depth_range: Nearest (included) and farthest (excluded) depth of a label, metres.
    """
    pixels = _pixels(points, camera_from_points, intrinsics)
    seen = pixels[..., 2] > 0
    if variant == "official":
        height, width = stored_size
        u, v = pixels[..., 0], pixels[..., 1]
        seen &= (u > BORDER) & (u < width - BORDER) & (v > BORDER) & (v < height - BORDER)
    augmented = _mapped(augmented_from_image, pixels)
    if variant == "nearest":
        return nearest_in_cells(augmented, seen, image_size, stride, depth_range).float()
    smallest = smallest_in_blocks(last_in_pixels(augmented, seen, image_size), stride)
    in_range = (smallest >= depth_range[0]) & (smallest < depth_range[1])
    return torch.where(in_range, smallest, 0.0).float()


def owners_of_points(points: Float[Tensor, "points 3"], boxes: Boxes) -> Int[Tensor, "points"]:
    """Index of the last box that holds each point, -1 where none does; points and boxes in one frame."""
    number = torch.arange(len(boxes), device=points.device)[:, None]
    held = torch.where(points_in_boxes(points, boxes), number, -1)  # boxes points
    return torch.cat([torch.full_like(held.new_empty(1, len(points)), -1), held]).amax(dim=0)


def owners_of_labels(
    labels: Float[Tensor, "cam h w"],
    points: Float[Tensor, "points 3"],
    owner: Int[Tensor, "points"],
    camera_from_points: Float[Tensor, "cam 4 4"],
    intrinsics: Float[Tensor, "cam 3 3"],
    augmented_from_image: Float[Tensor, "cam 4 4"],
    *,
    stride: int,
    variant: Literal["nearest", "official"],
) -> Int[Tensor, "cam h w"]:
    """Owner of the point that made each label, -1 where there is no label (docs/methods/tig_bev.md#depth-labels).

    A point made the label of its cell if it has its depth; of several, the highest owner counts.

    Args:
        labels: Output of `depth_labels` for the same points and cameras.
        owner: Box of each point, -1 for none.
    """
    pixels = _pixels(points, camera_from_points, intrinsics)
    augmented = _mapped(augmented_from_image, pixels)[..., :2]
    cells = (augmented / stride).round() if variant == "nearest" else (augmented.trunc() / stride).floor()
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    kept = (pixels[..., 2] > 0) & _inside(cells, shape)
    made_it = kept & (pixels[..., 2].float() == labels.flatten()[_flat(cells, shape, kept, 0)])
    return _reduced(owner.expand(kept.shape), cells, made_it, shape, "amax", -1)


def _pixels(
    points: Float[Tensor, "*cam points 3"],
    camera_from_points: Float[Tensor, "cam 4 4"],
    intrinsics: Float[Tensor, "cam 3 3"],
) -> Float[Tensor, "cam points 3"]:
    """u, v (pixels of the original image) and depth (metres) of the points in each camera."""
    points_camera = _mapped(camera_from_points, points.to(camera_from_points.dtype))
    u, v, depth = (intrinsics.to(points_camera.dtype) @ points_camera.mT).unbind(dim=1)
    return torch.stack([u / depth, v / depth, depth], dim=1).mT


def _mapped(
    b_from_a: Float[Tensor, "cam 4 4"], points_a: Float[Tensor, "*cam points 3"]
) -> Float[Tensor, "cam points 3"]:
    """`transform`, in memory axis by axis: with three coordinates, several times as fast as point by point."""
    b_from_a = b_from_a.to(points_a.dtype)
    return (b_from_a[:, :3, :3] @ points_a.mT + b_from_a[:, :3, 3:]).mT


def nearest_in_cells(
    pixels: Float[Tensor, "cam points 3"],
    seen: Bool[Tensor, "cam points"],
    image_size: tuple[int, int],
    stride: int,
    depth_range: tuple[float, float],
) -> Float[Tensor, "cam h w"]:
    """Smallest depth in range of the points (u, v, depth) that round to each cell; halves go to even."""
    shape = (len(pixels), image_size[0] // stride, image_size[1] // stride)
    depth = pixels[..., 2]
    cells = (pixels[..., :2] / stride).round()
    kept = seen & (depth >= depth_range[0]) & (depth < depth_range[1]) & _inside(cells, shape)
    nearest = _reduced(depth, cells, kept, shape, "amin", torch.inf)
    return torch.where(nearest.isinf(), 0.0, nearest)


def last_in_pixels(
    pixels: Float[Tensor, "cam points 3"], seen: Bool[Tensor, "cam points"], image_size: tuple[int, int]
) -> Float[Tensor, "cam h w"]:
    """Depth of the last point (u, v, depth) that falls on each pixel, coordinates truncated towards zero."""
    shape = (len(pixels), *image_size)
    places = pixels[..., :2].trunc()
    kept = seen & _inside(places, shape)
    # Which of several writes to one place survives is undefined in torch, so the largest number is asked for.
    number = torch.arange(pixels.shape[1], device=pixels.device).expand(kept.shape)
    last = _reduced(number, places, kept, shape, "amax", -1)
    camera = torch.arange(shape[0], device=pixels.device)[:, None, None]
    if not pixels.shape[1]:
        return pixels.new_zeros(shape)
    return torch.where(last >= 0, pixels[camera, last.clamp(min=0), 2], 0.0)


def smallest_in_blocks(depth: Float[Tensor, "cam h w"], stride: int) -> Float[Tensor, "cam h_cells w_cells"]:
    """Smallest depth above zero in each block of `stride` x `stride` pixels, 0 where there is none."""
    seen = torch.where(depth > 0, depth, torch.inf)
    smallest = -functional.max_pool2d(-seen[:, None], stride).squeeze(1)
    return torch.where(smallest.isinf(), 0.0, smallest)


def _inside(places: Float[Tensor, "cam points 2"], shape: tuple[int, int, int]) -> Bool[Tensor, "cam points"]:
    """Whether (column, row) lies in a map; coordinates that are not finite do not."""
    column, row = places.unbind(dim=-1)
    return (column >= 0) & (column < shape[2]) & (row >= 0) & (row < shape[1])


def _reduced(
    values: Tensor,
    places: Float[Tensor, "cam points 2"],
    kept: Bool[Tensor, "cam points"],
    shape: tuple[int, int, int],
    reduce: Literal["amin", "amax"],
    empty: float,
) -> Tensor:
    """Smallest or largest of the kept values (of each camera and point) at each place; `empty` where there is none."""
    size = math.prod(shape)
    # One place more for those that are not kept: no host waits for their number.
    place = _flat(places, shape, kept, size).flatten()
    return values.new_full((size + 1,), empty).scatter_reduce(0, place, values.flatten(), reduce)[:-1].view(shape)


def _flat(
    places: Float[Tensor, "cam points 2"], shape: tuple[int, int, int], kept: Bool[Tensor, "cam points"], other: int
) -> Int[Tensor, "cam points"]:
    """Position of the kept places in the flattened maps of all cameras, `other` for the rest."""
    column, row = places.long().unbind(dim=-1)
    camera = torch.arange(shape[0], device=places.device)[:, None]
    return torch.where(kept, (camera * shape[1] + row) * shape[2] + column, other)
