"""What is drawn before anything is rendered."""

from collections import Counter

import numpy as np
import pytest

from dualdistill.data.build import CATEGORIES, CLASS_OF_CATEGORY
from dualdistill.structures import CLASSES
from dualdistill.synthetic import DEMO, catalogue
from dualdistill.synthetic.catalogue import SLACK, Kind
from dualdistill.synthetic.config import FULL_REACH
from dualdistill.synthetic.draw import draw_scene
from dualdistill.synthetic.mesh import LEAF, METAL, Mesh, blob, box, cylinder, wheel
from dualdistill.synthetic.plan import Track
from dualdistill.synthetic.street import REACH, Curve
from dualdistill.synthetic.traffic import Occupancy
from dualdistill.synthetic.write import ATTRIBUTES

KINDS = [value for value in vars(catalogue).values() if isinstance(value, Kind)]
GREY = (0.5, 0.5, 0.5)


@pytest.mark.parametrize("split", ["train", "val"])
def test_all_ten_classes_occur_in_the_demo(split: str) -> None:
    seen: Counter[str] = Counter()
    for index in range(12):
        seen.update(CLASS_OF_CATEGORY.get(actor.category, "ignored") for actor in draw_scene(DEMO, split, index).actors)
    assert set(CLASSES) <= set(seen)
    assert seen["car"] > seen["bus"]


def test_a_scene_is_drawn_the_same_twice_and_its_neighbour_differs() -> None:
    first, again, other = (draw_scene(DEMO, "train", index) for index in (3, 3, 4))
    assert [a.size for a in first.actors] == [a.size for a in again.actors]
    assert [a.size for a in first.actors] != [a.size for a in other.actors]
    np.testing.assert_array_equal(first.ground.codes, again.ground.codes)


def test_a_small_reach_keeps_everybody_near() -> None:
    """Rows that start within reach may go on beyond it: a lane's last vehicle, road works of up to 24 m."""
    for index in range(6):
        plan = draw_scene(DEMO, "val", index)
        away = [np.hypot(*np.subtract(actor.track.at(0.0)[:2], plan.ego.at(0.0)[:2])) for actor in plan.actors]
        assert np.mean(np.array(away) < DEMO.reach + 12) > 0.8
        assert max(away) < FULL_REACH


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.category}-{kind.size[2]}")
@pytest.mark.parametrize("moves", [False, True])
def test_a_mesh_fills_its_box_up_to_the_slack(kind: Kind, moves: bool) -> None:
    for seed in range(4):
        size, mesh = kind.draw(np.random.default_rng(seed), moves)
        corners = mesh.triangles.reshape(-1, 3)
        np.testing.assert_allclose(corners.max(axis=0), np.array(size) / 2 - SLACK, atol=1e-9)
        np.testing.assert_allclose(corners.min(axis=0), SLACK - np.array(size) / 2, atol=1e-9)
        assert mesh.color.min() >= 0
        assert mesh.color.max() <= 1


@pytest.mark.parametrize(
    "solid",
    [
        box((0, 1), (0, 2), (0, 3), GREY, taper=(0.5, 0.8), lean=0.1),
        cylinder(0.5, 2.0, GREY, METAL, top=0.2),
        wheel(3.0, 1.0, 0.4, 0.2),
        blob((1.0, 2.0, 3.0), (1.0, 0.5, 2.0), GREY, LEAF),
    ],
    ids=["box", "cylinder", "wheel", "blob"],
)
def test_normals_of_a_solid_point_outwards_and_its_surface_is_closed(solid: Mesh) -> None:
    middle = solid.triangles.reshape(-1, 3).mean(axis=0)
    outwards = solid.triangles.mean(axis=1) - middle
    assert (np.einsum("fd,fd->f", solid.normals, outwards) > 0).all()
    edges = Counter()
    for triangle in solid.triangles.round(6).tolist():
        for start, stop in zip(triangle, triangle[1:] + triangle[:1], strict=True):
            edges[(tuple(start), tuple(stop))] += 1
            edges[(tuple(stop), tuple(start))] -= 1
    assert not any(edges.values())


def test_nobody_stands_in_anybody_else() -> None:
    """Discs inside the footprints, at the start and at the end of the scene."""
    for index in range(4):
        plan = draw_scene(DEMO, "train", index)
        for time in (0.0, DEMO.duration):
            place = np.array([actor.track.at(time)[:2] for actor in plan.actors])
            radius = np.array([min(actor.size[:2]) / 2 for actor in plan.actors])
            apart = np.linalg.norm(place[:, None] - place, axis=-1) + np.eye(len(place)) * 100
            assert (apart > radius[:, None] + radius).all()


def test_rectangles_that_touch_are_told_from_those_that_do_not() -> None:
    street, taken = Curve.straight(0.0, 0.0, 0.0), Occupancy([0.0, 1.0])
    assert taken.take(Track(curve=street, length=0.0, offset=0.0), 4.0, 2.0, gap=0.0)
    assert not taken.take(Track(curve=street, length=3.0, offset=1.0), 4.0, 2.0, gap=0.0)
    assert taken.take(Track(curve=street, length=0.0, offset=2.1), 4.0, 2.0, gap=0.0)
    assert not taken.take(Track(curve=street, length=12.0, offset=0.0, speed=-9.0), 4.0, 2.0, gap=0.0)
    assert taken.take(Track(curve=street, length=3.2, offset=0.0, turn=np.pi / 2), 4.0, 2.0, gap=0.0)


def test_a_curve_keeps_arc_length_and_offset() -> None:
    curve = Curve((5.0, -3.0, 0.7), -50.0, np.full(200, 1 / 80), 0.5)
    x, y, heading = curve.at(np.array([0.0, 1.0, 2.0]), 0.0)
    assert (x[0], y[0], heading[0]) == pytest.approx((5.0, -3.0, 0.7))
    np.testing.assert_allclose(np.hypot(np.diff(x), np.diff(y)), 1.0, atol=1e-3)
    left_x, left_y, _ = curve.at(1.0, 2.0)
    np.testing.assert_allclose([left_x - x[1], left_y - y[1]], 2 * np.array([-np.sin(heading[1]), np.cos(heading[1])]))


def test_the_ground_picture_covers_what_the_car_can_see() -> None:
    plan = draw_scene(DEMO, "val", 0)
    x, y, _ = plan.ego.at(DEMO.duration)
    assert max(abs(x), abs(y)) + 60 < REACH


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.category}-{kind.size[2]}")
@pytest.mark.parametrize("speed", [0.0, 2.0])
def test_categories_and_attributes_are_those_of_nuscenes(kind: Kind, speed: float) -> None:
    assert kind.category in CATEGORIES
    name = catalogue.attribute(kind.category, speed, parked=speed == 0)
    assert name is None or name in ATTRIBUTES
    assert (name is None) == kind.category.startswith("movable_object")
