import math

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from torch.testing import assert_close

from dualdistill.geometry.cameras import image_augmentation
from dualdistill.structures import CAMERAS, Boxes
from dualdistill.visualize.cameras import NEAR, Photographs, View, draw_cameras, front_faces, visible_edges
from dualdistill.visualize.palette import BoxLayer
from tests.visualize.scenes import BEV_FROM_FORWARD_CAMERA, boxes, forward_view, pinhole


def pixels_of(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def rig(height=100, width=200):
    """Six grey pictures; the front camera looks along +y, the others nowhere near a box."""
    away = torch.eye(4)
    away[2, 3] = 1000.0
    poses = [away, BEV_FROM_FORWARD_CAMERA, *[away] * 4]
    eye, intrinsics = torch.eye(4), pinhole(100.0, width, height)
    views = [
        View(intrinsics=intrinsics, augmented_from_image=eye, camera_from_bev=torch.linalg.inv(pose)) for pose in poses
    ]
    images = torch.full((6, 3, height, width), 90, dtype=torch.uint8)
    return Photographs(names=CAMERAS, images=images, views=tuple(views))


def test_a_known_box_lands_on_known_pixels():
    ahead = boxes((0.0, 11.0, 0.0, 2.0, 4.0, 2.0, math.pi / 2))  # rear face 10 m, front face 12 m away
    ends, visible = visible_edges(ahead, forward_view())
    assert visible.all()
    drawn = {tuple(round(v, 3) for v in point) for point in ends.flatten(0, 2).tolist()}
    rear = {(100 + 100 * x / 10, 50 + 100 * y / 10) for x in (-2, 2) for y in (-1, 1)}
    front = {(round(100 + 100 * x / 12, 3), round(50 + 100 * y / 12, 3)) for x in (-2, 2) for y in (-1, 1)}
    assert drawn == rear | front


def test_the_tinted_face_is_the_one_the_box_heads_to():
    away, towards, left = front_faces(
        *visible_edges(
            boxes(
                (0.0, 11.0, 0.0, 2.0, 4.0, 2.0, math.pi / 2),
                (0.0, 11.0, 0.0, 2.0, 4.0, 2.0, -math.pi / 2),
                (0.0, 11.0, 0.0, 4.0, 2.0, 2.0, math.pi),
            ),
            forward_view(),
        )
    )
    assert_close(away[:, 0].amax(), torch.tensor(100 + 200 / 12))
    assert_close(towards[:, 0].amax(), torch.tensor(100 + 200 / 10))
    assert left[:, 0].amax() < 100


def test_image_augmentation_moves_boxes_with_the_picture():
    augmentation = image_augmentation(resize=0.5, crop=(10.0, 5.0), size=(40, 80), flip=True, rotate_deg=0.0)
    ahead = boxes((1.0, 11.0, 0.5, 2.0, 4.0, 2.0, 0.3))
    plain, _ = visible_edges(ahead, forward_view())
    moved, _ = visible_edges(ahead, forward_view(augmentation))
    assert_close(moved[..., 0], 80 - (0.5 * plain[..., 0] - 10))
    assert_close(moved[..., 1], 0.5 * plain[..., 1] - 5)


def test_edges_that_cross_the_near_plane_end_on_it():
    beside = boxes((3.0, 0.0, 0.0, 8.0, 2.0, 2.0, math.pi / 2))  # from 4 m behind the camera to 4 m ahead
    ends, visible = visible_edges(beside, forward_view())
    assert visible[0].tolist().count(True) == 8  # the rear face is behind
    x = ends[0][visible[0]][..., 0]
    assert (x > 100).all()  # a box to the right stays on the right, its hidden end is not mirrored to the left
    at_near_plane = {round(100 + 100 * side / NEAR, 1) for side in (2, 4)}
    assert at_near_plane <= {round(v, 1) for v in x.flatten().tolist()}


def test_cutting_an_edge_does_not_change_what_is_in_front():
    whole = boxes((3.0, 12.0, 0.5, 8.0, 2.0, 2.0, 1.2))
    far, all_visible = visible_edges(whole, forward_view(), near=NEAR)
    cut, some = visible_edges(whole, forward_view(), near=12.0)
    assert all_visible.all()
    assert 0 < some.sum() < 12
    before, after = far[some], cut[some]
    along, moved = before[:, 1] - before[:, 0], after[:, 1] - after[:, 0]
    assert_close(along[:, 0] * moved[:, 1], along[:, 1] * moved[:, 0], atol=1e-2, rtol=1e-3)  # same line
    assert (moved.norm(dim=-1) <= along.norm(dim=-1) + 1e-3).all()


def test_nothing_of_a_box_behind_the_camera_is_visible():
    behind = boxes((0.0, -10.0, 0.0, 4.0, 2.0, 2.0, 0.0))
    ends, visible = visible_edges(behind, forward_view())
    assert not visible.any()
    assert [len(face) for face in front_faces(ends, visible)] == [0]


def test_a_front_face_half_behind_is_cut_to_a_polygon_in_front():
    slanted = boxes((0.0, 0.0, 0.0, 1.0, 6.0, 2.0, 0.0))  # its front face runs from y = -3 to 3
    (face,) = front_faces(*visible_edges(slanted, forward_view()))
    assert len(face.unique(dim=0)) == 4
    assert face.isfinite().all()
    assert_close(face[:, 0].amin(), torch.tensor(100 + 100 * 0.5 / 3))


def test_lines_are_drawn_where_the_box_is_and_nowhere_else():
    layer = BoxLayer(name="truth", boxes=boxes((0.0, 10.5, 0.0, 1.0, 4.0, 4.0, math.pi / 2)), colour="#00ff00")
    plain = pixels_of(draw_cameras(rig(), {"": []}))
    drawn = pixels_of(draw_cameras(rig(), {"": [layer]}))
    changed = (plain != drawn).any(axis=-1)[:200]  # above the legend
    rows, columns = np.nonzero(changed)
    left = 204  # of the front picture: 200 pixels and a gap of 4
    assert columns.min() == pytest.approx(left + 100 - 20, abs=2)
    assert columns.max() == pytest.approx(left + 100 + 20, abs=2)
    assert rows.min() == pytest.approx(50 - 20, abs=2)
    assert rows.max() == pytest.approx(50 + 20, abs=2)
    edge = drawn[50, left + 78 : left + 83]
    assert (edge[:, 1] - edge[:, 0]).max() > 100  # green on grey


def test_boxes_below_the_score_stay_out_of_the_picture():
    found = boxes((0.0, 10.0, 0.0, 1.0, 4.0, 4.0, 0.0), (3.0, 10.0, 0.0, 1.0, 1.0, 1.0, 0.0), score=[0.2, 0.1])
    layer = BoxLayer(name="student", boxes=found, colour="red", min_score=0.3)
    plain = pixels_of(draw_cameras(rig(), {"": []}))
    drawn = pixels_of(draw_cameras(rig(), {"": [layer]}))
    assert (plain[:200] == drawn[:200]).all()


def test_no_boxes_and_boxes_of_every_class_can_be_drawn():
    many = boxes(*[(float(x), 15.0, 0.0, 2.0, 1.0, 1.0, 0.1 * x) for x in range(-5, 5)])
    many = Boxes(**{**{f: getattr(many, f) for f in ("center", "size", "yaw", "velocity")}, "label": torch.arange(10)})
    layer = BoxLayer(name="truth", boxes=many)
    drawn = pixels_of(draw_cameras(rig(), {"": [BoxLayer(name="none", boxes=Boxes.empty()), layer]}, image_width=420))
    from dualdistill.visualize.palette import DARK

    for colour in DARK.classes.values():
        wanted = np.array(to_rgb(colour)) * 255
        assert (np.abs(drawn - wanted).max(axis=-1) < 12).any(), colour  # at least in the legend


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 2, 2), (5, 3, 2), (8, 3, 3)]
)
def test_any_number_of_cameras_fits_a_grid_at_its_own_size(count, columns, rows):
    one = rig()
    many = Photographs(
        names=tuple(map(str, range(count))),
        images=one.images[:1].expand(count, -1, -1, -1),
        views=one.views[:1] * count,
    )
    drawn = pixels_of(draw_cameras(many, {"": []}))
    assert drawn.shape[:2] == (rows * 100 + (rows - 1) * 4 + 34, columns * 200 + (columns - 1) * 4)


def test_detectors_stand_side_by_side_on_the_same_cameras():
    box = boxes((0.0, 10.5, 0.0, 1.0, 4.0, 4.0, math.pi / 2))
    panels = {"alone": [], "distilled": [BoxLayer(name="distilled", boxes=box, colour="#00ff00")]}
    photographs = rig().select([1])
    assert photographs.names == ("CAM_FRONT",)
    drawn = pixels_of(draw_cameras(photographs, panels))
    green = (drawn[:100, :, 1] - drawn[:100, :, 0]) > 100
    assert not green[:, :200].any()
    assert green[:, 204:].any()


def test_the_boxes_in_each_picture_are_counted():
    assert rig().seen(boxes((0.0, 10.0, 0.0, 1.0, 1.0, 1.0, 0.0), (0.0, -10.0, 0.0, 1.0, 1.0, 1.0, 0.0)))[1] == 1
