import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from dualdistill.geometry.grid import BevGrid

quick = settings(max_examples=20, deadline=None)
grids = st.builds(
    BevGrid,
    x_min=st.floats(-60, 60),
    y_min=st.floats(-60, 60),
    cell=st.floats(0.05, 3),
    width=st.integers(1, 9),
    height=st.integers(1, 9),
)


@quick
@given(grids)
def test_every_cell_holds_its_own_centre(grid):
    cells = grid.cells(grid.centers())
    column, row = cells.unbind(dim=-1)
    assert torch.equal(column, torch.arange(grid.width).expand(grid.shape))
    assert torch.equal(row, torch.arange(grid.height)[:, None].expand(grid.shape))
    assert grid.inside(cells).all()


@quick
@given(grids)
def test_a_map_over_the_extent_of_a_grid_has_that_grid(grid):
    again = BevGrid.covering(grid.extent, grid.shape)
    assert again.shape == grid.shape
    assert again.cell == pytest.approx(grid.cell)
    assert (again.x_min, again.y_min) == (grid.x_min, grid.y_min)


@quick
@given(grids, st.integers(1, 3))
def test_coarser_cells_are_blocks_of_fine_ones(grid, factor):
    fine = BevGrid(
        x_min=grid.x_min,
        y_min=grid.y_min,
        cell=grid.cell,
        width=grid.width * factor,
        height=grid.height * factor,
    )
    coarse = fine.coarser(factor)
    assert coarse.shape == grid.shape
    assert coarse.extent == pytest.approx(fine.extent)
    assert torch.equal(coarse.cells(fine.centers()), fine.cells(fine.centers()) // factor)


def test_rows_grow_with_y_and_columns_with_x():
    grid = BevGrid(x_min=-2.0, y_min=10.0, cell=0.5, width=6, height=3)
    assert grid.shape == (3, 6)
    assert grid.extent == (-2.0, 10.0, 1.0, 11.5)
    assert grid.cells(torch.tensor([-1.9, 11.4])).tolist() == [0, 2]
    assert_close(grid.centers()[2, 0], torch.tensor([-1.75, 11.25]))


def test_the_lower_border_is_inside_and_the_upper_one_is_not():
    grid = BevGrid.around(2.0, 0.5)
    points = torch.tensor([[-2.0, -2.0], [2.0, 0.0], [0.0, 2.0], [-2.01, 0.0], [1.99, 1.99]])
    assert grid.inside(grid.cells(points)).tolist() == [True, False, False, False, True]


def test_a_point_just_below_the_lower_bound_is_not_pulled_into_the_first_cell():
    grid = BevGrid.around(51.2, 0.8)
    assert grid.cells(torch.tensor([-51.5, 0.0])).tolist() == [-1, 64]


def test_continuous_coordinates_are_whole_at_lower_corners_and_half_at_centres():
    grid = BevGrid.around(51.2, 0.8)
    assert_close(grid.coordinates(torch.tensor([-51.2, 0.0])), torch.tensor([0.0, 64.0]))
    assert_close(grid.coordinates(grid.centers()[3, 5]), torch.tensor([5.5, 3.5]))


@pytest.mark.parametrize("wrong", [{"cell": 0.0}, {"cell": -0.8}, {"width": 0}, {"height": 0}])
def test_a_grid_without_cells_is_refused(wrong):
    with pytest.raises(ValueError, match="positive"):
        BevGrid(**{"x_min": 0.0, "y_min": 0.0, "cell": 0.8, "width": 4, "height": 4} | wrong)


def test_cells_that_are_not_square_or_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="not square"):
        BevGrid.covering((-10.0, -10.0, 10.0, 10.0), (20, 40))
    with pytest.raises(ValueError, match="do not divide"):
        BevGrid.around(51.2, 0.7)
    with pytest.raises(ValueError, match="cannot be merged"):
        BevGrid.around(2.0, 0.5).coarser(3)
