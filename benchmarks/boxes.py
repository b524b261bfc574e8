"""Overlap and suppression of all boxes at once, beside the loops over pairs of other code bases.

The loops are compiled by numba where it is installed, as theirs are by a C++ compiler; in plain Python they are
measured on fewer boxes, and are named accordingly.
"""

import math

import torch
from torch import Tensor

from benchmarks.floor import arithmetic_ms
from benchmarks.references import boxes as reference
from dualdistill.ops.nms import circle_nms, rotated_nms
from dualdistill.ops.rotated_iou import rotated_iou
from dualdistill.report.timing import Row, Variant, measure

THRESHOLD, SQUARED_RADIUS = 0.2, 4.0
OPERATIONS = 120
"""Approximate operations of one overlap of rectangles: two frames, eight corners, four clippings, an area."""


def run(quick: bool) -> list[Row]:
    """Overlaps and suppression of 1000 boxes, circle suppression of 500."""
    return box_rows(150, 500, repeats=5) if quick else box_rows(1000, 500, repeats=15)


def box_rows(count: int, circles: int, *, repeats: int) -> list[Row]:
    native = reference.compiled()
    how = "pair by pair, compiled by numba"
    loops = native or (reference.iou_matrix, reference.rotated_nms, reference.circle_nms)
    if native is None:
        how, count, circles = "pair by pair, plain Python", min(count, 60), min(circles, 100)
    iou_loop, rotated_loop, circle_loop = loops
    boxes, scores = crowd(count)
    plain = boxes.double().numpy()
    order = scores.argsort(descending=True, stable=True).numpy()
    near = int((rotated_iou(boxes, boxes) > 0).sum())
    threads = torch.get_num_threads()
    few = max(1, repeats // 3)
    rows = measure(
        f"rotated IoU, {count} x {count}, {near} overlap (float64 inside, {threads} threads)",
        [
            Variant(name=how, run=lambda: iou_loop(plain, plain), repeats=few),
            Variant(name="all pairs at once", run=lambda: rotated_iou(boxes, boxes)),
        ],
        repeats=repeats,
        floor_ms=arithmetic_ms(near * OPERATIONS),
        floor=f"{OPERATIONS} operations an overlap",
    )
    rows += measure(
        f"rotated NMS, {count} boxes ({threads} threads)",
        [
            Variant(name=how, run=lambda: rotated_loop(plain, order, THRESHOLD), repeats=few),
            Variant(name="all pairs at once", run=lambda: rotated_nms(boxes, scores, THRESHOLD, count, count)),
        ],
        repeats=repeats,
        floor_ms=arithmetic_ms(near / 2 * OPERATIONS),
        floor=f"{OPERATIONS} operations an overlap",
    )
    some, their_scores = crowd(circles)
    centers, by_score = some[:, :2], their_scores.argsort(descending=True, stable=True).numpy()
    return rows + measure(
        f"circle NMS, {circles} boxes ({threads} threads)",
        [
            Variant(name=f"loop, {how}", run=lambda: circle_loop(centers.numpy(), by_score, SQUARED_RADIUS)),
            Variant(name="all pairs at once", run=lambda: circle_nms(centers, their_scores, SQUARED_RADIUS, circles)),
        ],
        repeats=10 * repeats,
        floor_ms=arithmetic_ms(circles**2 / 2 * 5),
        floor="five operations a pair",
    )


def crowd(count: int) -> tuple[Tensor, Tensor]:
    """Cars, pedestrians and buses in heaps of five around 100 m of road, and their scores."""
    generator = torch.Generator().manual_seed(0)
    heap = 100 * torch.rand(math.ceil(count / 5), 2, generator=generator) - 50
    centers = heap.repeat_interleave(5, dim=0)[:count] + torch.randn(count, 2, generator=generator)
    sizes = torch.tensor([[4.6, 1.9], [0.7, 0.7], [11.0, 2.9]])[torch.randint(3, (count,), generator=generator)]
    sizes = sizes * (0.8 + 0.4 * torch.rand(count, 2, generator=generator))
    yaw = math.tau * torch.rand(count, 1, generator=generator)
    return torch.cat([centers, sizes, yaw], dim=1), torch.rand(count, generator=generator)
