import math

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from torch.testing import assert_close

from dualdistill.structures import CLASSES, Boxes
from dualdistill.visualize.bev import activity, draw_bev, draw_features, heading_ticks
from dualdistill.visualize.palette import DARK, LIGHT, BoxLayer
from tests.visualize.scenes import boxes

EXTENT = (-20.0, -10.0, 20.0, 30.0)


def lines(axes):
    return [
        np.array(path.vertices)
        for collection in axes.collections
        if isinstance(collection, LineCollection)
        for path in collection.get_paths()
    ]


def test_ahead_is_up_and_right_is_right_in_a_lidar_frame():
    layer = BoxLayer(name="truth", boxes=boxes((5.0, 20.0, 0.0, 4.0, 2.0, 1.5, math.pi / 2)), colour="green")
    (axes,) = draw_bev(None, {"": [layer]}, extent=EXTENT).axes
    outline, tick = lines(axes)
    assert axes.get_xlim() == (-20, 20)
    assert axes.get_ylim() == (-10, 30)
    np.testing.assert_allclose(outline.mean(axis=0) * 5 / 4 - outline[0] / 4, [5, 20], atol=1e-5)
    np.testing.assert_allclose(outline.max(axis=0), [6, 22], atol=1e-5)
    np.testing.assert_allclose(tick, [[5, 20], [5, 23]], atol=1e-5)


def test_ahead_is_up_in_an_ego_frame_too():
    layer = BoxLayer(name="truth", boxes=boxes((20.0, 5.0, 0.0, 4.0, 2.0, 1.5, 0.0)), colour="green")
    (axes,) = draw_bev(None, {"": [layer]}, extent=(-10.0, -20.0, 30.0, 25.0), forward="x").axes
    _, tick = lines(axes)
    np.testing.assert_allclose(tick, [[-5, 20], [-5, 23]], atol=1e-5)  # left of the car, heading up
    assert axes.get_xlim() == (-25, 20)
    assert axes.get_ylim() == (-10, 30)


def test_heading_ticks_leave_the_box_at_its_front():
    tick = heading_ticks(boxes((1.0, 2.0, 0.0, 4.0, 2.0, 1.5, math.pi / 6)))[0]
    heading = (tick[1] - tick[0]) / np.linalg.norm(tick[1] - tick[0])
    np.testing.assert_allclose(heading, [math.cos(math.pi / 6), math.sin(math.pi / 6)], atol=1e-6)
    assert np.linalg.norm(tick[1] - tick[0]) > 2.0


def test_points_outside_the_extent_are_left_out():
    points = torch.tensor([[0.0, 0.0, 0.0, 9.0], [19.9, 29.9, 1.0, 9.0], [20.5, 0.0, 0.0, 9.0], [0.0, -11.0, 0.0, 9.0]])
    (axes,) = draw_bev(points, {"": []}, extent=EXTENT).axes
    (cloud,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    np.testing.assert_allclose(cloud.get_offsets(), points[:2, :2], atol=1e-6)


def test_a_layer_shows_annotations_always_and_detections_from_their_score_on():
    table = (0.0, 0.0, 0.0, 4.0, 2.0, 1.5, 0.0)
    found = boxes(table, table, table, score=[0.1, 0.5, 0.9])
    layer = BoxLayer(name="student", boxes=found, min_score=0.5)
    assert_close(layer.shown.score, torch.tensor([0.5, 0.9]))
    assert len(BoxLayer(name="truth", boxes=boxes(table), min_score=0.5).shown) == 1
    weak, strong = layer.opacities()
    assert weak < strong <= 1.0


def test_a_layer_without_a_colour_is_coloured_and_explained_by_class():
    layer = BoxLayer(name="truth", boxes=boxes((0.0, 0.0, 0.0, 4.0, 2.0, 1.5, 0.0), label=2))
    assert layer.colours(DARK) == [DARK.classes["construction_vehicle"]]
    assert layer.legend(DARK) == [("construction vehicle", DARK.classes["construction_vehicle"])]
    assert set(LIGHT.classes) == set(DARK.classes) == set(CLASSES)


def test_panels_stand_side_by_side_with_one_legend():
    truth = BoxLayer(name="truth", boxes=boxes((0.0, 5.0, 0.0, 4.0, 2.0, 1.5, 0.0)), colour="green", filled=True)
    nothing = BoxLayer(name="student", boxes=Boxes.empty(), colour="red")
    figure = draw_bev(torch.zeros(0, 5), {"Teacher": [truth], "Student": [truth, nothing]}, theme=DARK)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Teacher", "Student"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["truth", "student"]


def luminance(colour):
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_words_and_boxes_stand_out_from_the_paper(theme):
    assert min(contrast(colour, theme.paper) for colour in (theme.ink, theme.muted)) >= 4.5
    boxes_ = (theme.truth, theme.teacher, theme.student, theme.distilled, *theme.classes.values())
    assert min(contrast(colour, theme.paper) for colour in boxes_) >= 3.0


def test_activity_is_the_mean_magnitude_and_hot_cells_are_where_boxes_are_drawn():
    features = torch.zeros(3, 4, 5)
    features[:, 3, 1] = torch.tensor([-3.0, 0.0, 6.0])
    assert_close(activity(features)[3, 1], torch.tensor(3.0))
    figure = draw_features({"map": features}, boxes((-3.0, 6.0, 0.0, 1.0, 1.0, 1.0, 0.0)), extent=(-10, -8, 10, 8))
    image = figure.axes[0].images[0]
    assert image.get_extent() == [-10, 10, -8, 8]
    assert image.origin == "lower"  # row 3 of 4 lies at y in [4, 8), column 1 of 5 at x in [-6, -2)
    assert image.get_array()[3, 1] == 3.0


def test_each_map_has_its_own_scale():
    maps = {"weak": torch.rand(4, 8, 8), "strong": 10 * torch.rand(2, 16, 16)}
    tops = [axes.images[0].norm.vmax for axes in draw_features(maps, extent=(-8, -8, 8, 8)).axes[:2]]
    assert tops[0] < 1.1 < tops[1]


def test_a_feature_map_of_an_ego_frame_is_turned_with_the_boxes():
    features = torch.zeros(1, 4, 6)
    features[0, 3, 5] = 1.0  # far ahead (x large), to the left (y large)
    figure = draw_features({"map": features}, extent=(-6, -4, 6, 4), forward="x")
    array = figure.axes[0].images[0].get_array()
    assert array.shape == (6, 4)
    assert array[5, 0] == 1.0  # top left


def test_a_silent_map_can_be_drawn():
    figure = draw_features({"dead": torch.zeros(2, 4, 4)}, extent=(-4, -4, 4, 4))
    assert figure.axes[0].images[0].norm.vmax > 0
