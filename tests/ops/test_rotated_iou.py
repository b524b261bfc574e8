import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from shapely import affinity, geometry
from torch import Tensor
from torch.testing import assert_close

from dualdistill.ops.rotated_iou import rotated_iou

quick = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31 - 1)


def rotated_iou_plain(a: Float[Tensor, "a 5"], b: Float[Tensor, "b 5"]) -> Float[Tensor, "a b"]:
    """Definition of `rotated_iou`, pair by pair: rectangle `a`, cut by the four sides of `b`."""
    iou = a.new_zeros(len(a), len(b))
    for i, first in enumerate(a.tolist()):
        for j, second in enumerate(b.tolist()):
            polygon = _rectangle(first)
            sides = _rectangle(second)
            for start, end in zip(sides, sides[1:] + sides[:1], strict=True):
                polygon = _cut(polygon, start, end)
            shared = _area(polygon)
            union = first[2] * first[3] + second[2] * second[3] - shared
            iou[i, j] = shared / union if union > 0 else 0.0
    return iou


def _rectangle(box: list[float]) -> list[tuple[float, float]]:
    """Corners, counter-clockwise."""
    x, y, length, width, yaw = box
    cos, sin = math.cos(yaw), math.sin(yaw)
    corners = (
        (length / 2, width / 2),
        (-length / 2, width / 2),
        (-length / 2, -width / 2),
        (length / 2, -width / 2),
    )
    return [(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in corners]


def _cut(
    polygon: list[tuple[float, float]], start: tuple[float, float], end: tuple[float, float]
) -> list[tuple[float, float]]:
    """Part of a polygon to the left of the line from `start` to `end`."""

    def left(point: tuple[float, float]) -> float:
        return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])

    kept = []
    for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if left(p) >= 0:
            kept.append(p)
        if left(p) * left(q) < 0:
            t = left(p) / (left(p) - left(q))
            kept.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
    return kept


def _area(polygon: list[tuple[float, float]]) -> float:
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum(p[0] * q[1] - p[1] * q[0] for p, q in pairs)) / 2


def random_rectangles(seed: int, count: int, reach: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    low, high = torch.tensor([[-reach, -reach, 0.2, 0.2, -4], [reach, reach, 5, 3, 4]], dtype=torch.float64)
    rectangles = low + draw * (high - low)
    # a quarter of them at right angles, where sides coincide in direction
    right = torch.randint(-3, 4, (count,), generator=generator) * (math.pi / 2)
    rectangles[::4, 4] = right[::4]
    return rectangles


def polygon(rectangle: Tensor) -> geometry.Polygon:
    x, y, length, width, yaw = rectangle.tolist()
    flat = geometry.box(-length / 2, -width / 2, length / 2, width / 2)
    return affinity.translate(affinity.rotate(flat, yaw, origin=(0, 0), use_radians=True), x, y)


def rectangle(x=0.0, y=0.0, length=4.0, width=2.0, yaw=0.0) -> Tensor:
    return torch.tensor([[x, y, length, width, yaw]], dtype=torch.float64)


@quick
@given(seeds)
def test_all_pairs_at_once_agree_with_cutting_pair_by_pair(seed):
    a, b = random_rectangles(seed, 3), random_rectangles(seed + 1, 2)
    assert_close(rotated_iou(a, b), rotated_iou_plain(a, b), atol=1e-12, rtol=0)


@quick
@given(seeds)
def test_it_is_the_iou_of_polygons(seed):
    a, b = random_rectangles(seed, 6), random_rectangles(seed + 1, 5)
    expected = [[polygon(p).intersection(polygon(q)).area / polygon(p).union(polygon(q)).area for q in b] for p in a]
    assert_close(rotated_iou(a, b), torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)


@quick
@given(seeds)
def test_it_does_not_care_who_is_first_nor_where_the_world_begins(seed):
    a, b = random_rectangles(seed, 8), random_rectangles(seed + 1, 8)
    iou = rotated_iou(a, b)
    assert_close(rotated_iou(b, a).T, iou, atol=1e-12, rtol=0)
    moved = torch.tensor([700.0, -300.0, 0, 0, 0], dtype=torch.float64)
    assert_close(rotated_iou(a + moved, b + moved), iou, atol=1e-9, rtol=0)
    assert ((iou >= 0) & (iou <= 1 + 1e-12)).all()


@pytest.mark.parametrize("iou", [rotated_iou, rotated_iou_plain])
@pytest.mark.parametrize("yaw", [0.0, 0.3, math.pi / 4, math.pi / 2, -2.0, 1e-9])
class TestSpecialCases:
    def test_a_rectangle_is_itself_also_upside_down(self, iou, yaw):
        one = rectangle(1.0, 2.0, yaw=yaw)
        assert_close(iou(one, one).item(), 1.0)
        assert_close(iou(one, rectangle(1.0, 2.0, yaw=yaw + math.pi)).item(), 1.0)

    def test_neighbours_that_touch_share_nothing(self, iou, yaw):
        for along, left in ((4.0, 0.0), (0.0, 2.0), (4.0, 2.0), (-4.0, 0.0), (-4.0, 1.0)):
            x = along * math.cos(yaw) - left * math.sin(yaw)
            y = along * math.sin(yaw) + left * math.cos(yaw)
            assert iou(rectangle(yaw=yaw), rectangle(x, y, yaw=yaw)).item() == pytest.approx(0.0, abs=1e-12)

    def test_half_a_length_ahead_is_a_third(self, iou, yaw):
        ahead = rectangle(2 * math.cos(yaw), 2 * math.sin(yaw), yaw=yaw)
        assert_close(iou(rectangle(yaw=yaw), ahead).item(), 1 / 3)

    def test_one_inside_the_other_is_the_ratio_of_areas(self, iou, yaw):
        assert_close(iou(rectangle(yaw=yaw), rectangle(0.2, 0.1, 1.0, 0.5, 0.7)).item(), 0.5 / 8)

    def test_crossed_at_right_angles_they_share_the_square(self, iou, yaw):
        crossed = rectangle(yaw=yaw + math.pi / 2)
        assert_close(iou(rectangle(yaw=yaw), crossed).item(), 4 / 12)

    def test_without_area_there_is_no_overlap(self, iou, yaw):
        for flat in (
            rectangle(length=0.0, yaw=yaw),
            rectangle(width=0.0, yaw=yaw),
            rectangle(0, 0, 0, 0, yaw),
        ):
            assert iou(flat, flat).item() == 0
            assert iou(rectangle(), flat).item() == pytest.approx(0.0, abs=1e-12)
            assert iou(flat, rectangle()).item() == pytest.approx(0.0, abs=1e-12)


def test_nobody_overlaps_nobody():
    none, some = torch.zeros(0, 5), torch.rand(3, 5)
    assert rotated_iou(none, some).shape == (0, 3)
    assert rotated_iou(some, none).shape == (3, 0)


def test_a_crowd_is_worked_on_in_pieces(monkeypatch):
    crowd = random_rectangles(0, 12, reach=0.5)
    whole = rotated_iou(crowd, crowd)
    monkeypatch.setattr("dualdistill.ops.rotated_iou._PAIRS_AT_ONCE", 10)
    assert torch.equal(rotated_iou(crowd, crowd), whole)
    assert (whole > 0).sum() > 100


def test_single_precision_in_is_single_precision_out():
    crowd = random_rectangles(0, 5)
    iou = rotated_iou(crowd.float(), crowd.float())
    assert iou.dtype == torch.float32
    assert_close(iou.double(), rotated_iou(crowd, crowd), atol=1e-5, rtol=0)
