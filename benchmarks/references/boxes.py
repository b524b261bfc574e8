"""Rotated overlap pair by pair, and suppression box by box: the algorithms of mmcv's CPU operators (`box_iou_rotated`,
`nms_rotated`) and of CenterPoint's circle NMS, in loops.

Source: their published description: crossings of all sides, corners of one inside the other, convex hull (Graham's
scan), shoelace formula. Meant to be compiled by numba, as theirs are by a C++ compiler; see `compiled`.
"""

import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np


def compiled() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]] | None:
    """`iou_matrix`, `rotated_nms` and `circle_nms` as machine code; None without numba."""
    try:
        import numba
    except ImportError:
        return None
    made: dict[str, Any] = {}
    functions: tuple[Any, ...] = (corners, crossings, hull_area, pair_iou, iou_matrix, rotated_nms, circle_nms)
    for function in functions:
        # Each calls those before it by name: the compiled ones.
        linked = FunctionType(function.__code__, {**function.__globals__, **made}, function.__name__)
        made[function.__name__] = numba.njit(linked)
    return made["iou_matrix"], made["rotated_nms"], made["circle_nms"]


def corners(box: np.ndarray, x: float, y: float) -> np.ndarray:
    """Four corners of (x, y, length, width, yaw), counter-clockwise, seen from (x, y)."""
    cos, sin = 0.5 * math.cos(box[4]), 0.5 * math.sin(box[4])
    out = np.empty((4, 2))
    for corner, (ahead, left) in enumerate(((1, 1), (-1, 1), (-1, -1), (1, -1))):
        out[corner, 0] = box[0] - x + ahead * cos * box[2] - left * sin * box[3]
        out[corner, 1] = box[1] - y + ahead * sin * box[2] + left * cos * box[3]
    return out


def crossings(a: np.ndarray, b: np.ndarray, found: np.ndarray) -> int:
    """Fills `found` with the corners of the intersection, some of them twice, and returns how many there are."""
    count = 0
    for i in range(4):
        ax, ay = a[i]
        ux, uy = a[(i + 1) % 4] - a[i]
        for j in range(4):
            vx, vy = b[(j + 1) % 4] - b[j]
            turn = ux * vy - uy * vx
            if abs(turn) <= 1e-14:
                continue
            dx, dy = b[j, 0] - ax, b[j, 1] - ay
            s, t = (dx * vy - dy * vx) / turn, (dx * uy - dy * ux) / turn
            if 0 <= s <= 1 and 0 <= t <= 1:
                found[count, 0] = ax + s * ux
                found[count, 1] = ay + s * uy
                count += 1
    for turn_of in range(2):
        inner, outer = (a, b) if turn_of == 0 else (b, a)
        sx, sy = outer[1] - outer[0]
        tx, ty = outer[3] - outer[0]
        for i in range(4):
            px, py = inner[i] - outer[0]
            along, across = px * sx + py * sy, px * tx + py * ty
            if 0 <= along <= sx * sx + sy * sy and 0 <= across <= tx * tx + ty * ty:
                found[count, 0] = inner[i, 0]
                found[count, 1] = inner[i, 1]
                count += 1
    return count


def hull_area(points: np.ndarray, count: int) -> float:
    """Area of the convex hull of the first `count` points."""
    lowest = 0
    for i in range(1, count):
        if points[i, 1] < points[lowest, 1] or (points[i, 1] == points[lowest, 1] and points[i, 0] < points[lowest, 0]):
            lowest = i
    x, y = points[lowest]
    rays = np.empty((count, 2))
    for i in range(count):
        rays[i, 0], rays[i, 1] = points[i, 0] - x, points[i, 1] - y
    rays[lowest, 0], rays[lowest, 1] = rays[0, 0], rays[0, 1]
    rays[0] = 0.0
    for i in range(2, count):  # by angle, then by distance
        ux, uy = rays[i]
        j = i - 1
        while j >= 1:
            turn = rays[j, 0] * uy - rays[j, 1] * ux
            near = ux * ux + uy * uy < rays[j, 0] ** 2 + rays[j, 1] ** 2
            if turn < -1e-12 or (abs(turn) <= 1e-12 and near):
                rays[j + 1] = rays[j]
                j -= 1
            else:
                break
        rays[j + 1, 0], rays[j + 1, 1] = ux, uy
    hull = np.empty((count, 2))
    size = 0
    for i in range(count):
        while size >= 2 and (
            (hull[size - 1, 0] - hull[size - 2, 0]) * (rays[i, 1] - hull[size - 2, 1])
            - (hull[size - 1, 1] - hull[size - 2, 1]) * (rays[i, 0] - hull[size - 2, 0])
            <= 0
        ):
            size -= 1
        hull[size] = rays[i]
        size += 1
    twice = 0.0
    for i in range(1, size - 1):
        twice += hull[i, 0] * hull[i + 1, 1] - hull[i, 1] * hull[i + 1, 0]
    return abs(twice) / 2


def pair_iou(first: np.ndarray, second: np.ndarray) -> float:
    area, other = first[2] * first[3], second[2] * second[3]
    if area < 1e-14 or other < 1e-14:
        return 0.0
    x, y = (first[0] + second[0]) / 2, (first[1] + second[1]) / 2
    found = np.empty((24, 2))
    count = crossings(corners(first, x, y), corners(second, x, y), found)
    if count <= 2:
        return 0.0
    shared = hull_area(found, count)
    return shared / (area + other - shared)


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of all pairs of (x, y, length, width, yaw), float64."""
    out = np.empty((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            out[i, j] = pair_iou(a[i], b[j])
    return out


def rotated_nms(boxes: np.ndarray, order: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of the kept boxes, best first; `order` sorts them by falling score."""
    struck = np.zeros(len(boxes), np.bool_)
    kept = np.empty(len(boxes), np.int64)
    count = 0
    for i in range(len(order)):
        if struck[order[i]]:
            continue
        kept[count] = order[i]
        count += 1
        for j in range(i + 1, len(order)):
            if not struck[order[j]] and pair_iou(boxes[order[i]], boxes[order[j]]) > threshold:
                struck[order[j]] = True
    return kept[:count]


def circle_nms(centers: np.ndarray, order: np.ndarray, squared_radius: float) -> np.ndarray:
    """As `rotated_nms`, by distance."""
    struck = np.zeros(len(centers), np.bool_)
    kept = np.empty(len(centers), np.int64)
    count = 0
    for i in range(len(order)):
        if struck[order[i]]:
            continue
        kept[count] = order[i]
        count += 1
        x, y = centers[order[i]]
        for j in range(i + 1, len(order)):
            if (x - centers[order[j], 0]) ** 2 + (y - centers[order[j], 1]) ** 2 <= squared_radius:
                struck[order[j]] = True
    return kept[:count]
