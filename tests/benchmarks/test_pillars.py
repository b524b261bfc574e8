import pytest
import torch
from torch import nn
from torch.testing import assert_close

from benchmarks.pillars import GRID, equality_rows, flat_cells, pillar_rows, street_points
from benchmarks.references.pillars import hard_pillars, hard_voxels
from dualdistill.models.pillars import PillarEncoder


def test_hard_voxels_take_points_and_pillars_first_come_first_served():
    points = torch.arange(8.0)[:, None]
    cell = torch.tensor([5, 2, 5, 9, 5, 2, 5, 9])
    voxels, count, cells = hard_voxels(points, cell, max_points=3, max_pillars=2)
    assert cells.tolist() == [5, 2]
    assert count.tolist() == [3, 2]
    assert voxels[..., 0].tolist() == [[0, 2, 4], [1, 5, 0]]


@pytest.mark.parametrize("kind", ["street", "one point", "one cell", "none"])
def test_padded_voxels_are_dynamic_pillars_where_no_cap_binds_and_padding_does_not_count(kind):
    points = street_points(333)
    if kind == "one point":
        points = type(points)(features=points.features[:1], sample=points.sample[:1])
    if kind == "one cell":
        points.features[:, :2] = 0.1
    if kind == "none":
        points = type(points)(features=points.features[:0], sample=points.sample[:0])
    encoder = PillarEncoder(5, (8,), GRID, (-5.0, 3.0)).eval()
    layer = encoder.layers[0]
    padded = hard_pillars(
        points.features,
        flat_cells(points.features),
        GRID,
        layer.linear,
        layer.norm,
        max_points=333,
        max_pillars=333,
        skip_padding=True,
    )
    assert_close(padded, encoder(points, 1), rtol=1e-4, atol=1e-4)


def test_published_padding_takes_part_in_the_maximum():
    points = street_points(50)
    linear, norm = nn.Linear(10, 4, bias=False), nn.BatchNorm1d(4).eval()
    norm.bias.data.fill_(100.0)
    linear.weight.data.zero_()
    linear.weight.data[:, 2] = -1e-3
    arguments = (points.features + 3, flat_cells(points.features), GRID, linear, norm)
    caps = {"max_points": 60, "max_pillars": 60}
    assert (hard_pillars(*arguments, **caps) >= hard_pillars(*arguments, **caps, skip_padding=True)).all()


def test_the_scene_is_in_range_and_of_the_size_asked_for():
    points = street_points(1001)
    assert points.features.shape == (1001, 5)
    assert GRID.inside(GRID.cells(points.features[:, :2])).all()


def test_the_benchmark_compares_equals():
    rows = pillar_rows(300, repeats=1)
    assert len(rows) == 4 + 4 + 3
    encoder = PillarEncoder(5, (64,), GRID, (-5.0, 3.0)).eval()
    rows = equality_rows(encoder, street_points(400), "tiny")
    assert [row.difference < 1e-4 for row in rows if row.difference is not None] == [True, True]
