"""Labels drawn as maps (docs/methods/labeldistill.md#label-maps)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from dualdistill.distill.label_encoder import LabelMaps, label_maps
from dualdistill.geometry.grid import BevGrid
from dualdistill.structures import CLASSES, Boxes
from tests.distill.conftest import random_boxes

GRID = BevGrid.around(51.2, 0.8)


def mask(maps: LabelMaps) -> torch.Tensor:
    """The painted cells."""
    return maps.klass.any(dim=-1)


def one(name: str, x: float, y: float, length: float, width: float, yaw_degrees: float = 0.0) -> Boxes:
    return Boxes(
        center=torch.tensor([[x, y, 0.5]]),
        size=torch.tensor([[length, width, 1.5]]),
        yaw=torch.tensor([math.radians(yaw_degrees)]),
        velocity=torch.tensor([[math.nan, math.nan]]),
        label=torch.tensor([CLASSES.index(name)]),
    )


@pytest.mark.parametrize(
    ("box", "count", "rows", "columns"),
    [
        (one("car", 0.24, 0.48, 4.6, 1.9), 8, (64, 65), (62, 65)),
        (one("car", 0.24, 0.48, 4.6, 1.9, 90.0), 8, (63, 66), (63, 64)),
        (one("bus", 0.24, 0.48, 11.0, 2.9), 24, (63, 65), (60, 67)),
        (one("trailer", 0.24, 0.48, 12.0, 2.9, 30.0), 21, None, None),
        (one("pedestrian", 0.24, 0.48, 0.7, 0.7), 1, (64, 64), (64, 64)),
    ],
    ids=["car", "car across", "bus", "oblique trailer", "pedestrian"],
)
def test_a_box_paints_the_cells_worked_out_by_hand(box, count, rows, columns):
    maps = label_maps((box,), GRID)
    row, column = mask(maps)[0].nonzero().unbind(dim=1)
    assert len(row) == count
    if rows:
        assert (row.min(), row.max()) == rows
        assert (column.min(), column.max()) == columns


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_each_painted_cell_tells_of_one_box_and_the_others_are_zero(seed):
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(6, generator)
    maps = label_maps((boxes,), BevGrid.around(6.4, 0.8))
    assert_close(maps.klass.sum(dim=-1), mask(maps).float())
    assert not maps.box[~mask(maps)].any()
    values = torch.cat([boxes.center, boxes.size, boxes.yaw[:, None], boxes.velocity], dim=1)
    for told, klass in zip(maps.box[mask(maps)], maps.klass[mask(maps)], strict=True):
        (owner,) = (values == told).all(dim=1).nonzero().flatten().tolist()
        assert klass[boxes.label[owner]] == 1


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(-6.39, 6.39), y=st.floats(-6.39, 6.39), length=st.floats(0.01, 15), width=st.floats(0.01, 4),
    yaw=st.floats(-180, 180),
)  # fmt: skip
def test_every_box_centred_on_the_map_leaves_a_trace(x, y, length, width, yaw):
    assert mask(label_maps((one("bus", x, y, length, width, yaw),), BevGrid.around(6.4, 0.8))).any()


def test_a_box_centred_off_the_map_paints_its_border_only_as_released():
    off = one("bus", 7.0, 0.0, 4.0, 2.0)
    grid = BevGrid.around(6.4, 0.8)
    assert not mask(label_maps((off,), grid)).any()
    painted = mask(label_maps((off,), grid, paint_out_of_range=True))[0]
    assert painted[:, -1].any()
    assert painted[:, :-1].sum() == 0


def test_the_later_class_is_seen_where_two_boxes_meet():
    car, person = one("car", 0.24, 0.48, 4.6, 1.9), one("pedestrian", 0.24, 0.48, 0.7, 0.7)
    both = Boxes(**{name: torch.cat([getattr(person, name), getattr(car, name)]) for name in
                    ("center", "size", "yaw", "velocity", "label")})  # fmt: skip
    maps = label_maps((both,), GRID)
    assert maps.klass[0, 64, 64, CLASSES.index("pedestrian")] == 1
    assert mask(maps).sum() == 8


def test_a_velocity_nobody_knows_is_drawn_as_zero():
    maps = label_maps((one("car", 0.0, 0.0, 4.6, 1.9),), GRID)
    assert maps.box.isfinite().all()
    assert not maps.box[..., 7:].any()


def test_a_scene_without_boxes_is_blank_beside_one_with_boxes():
    maps = label_maps((Boxes.empty(), one("car", 0.0, 0.0, 4.6, 1.9)), GRID)
    assert not mask(maps)[0].any()
    assert mask(maps)[1].any()
