"""From the BEV frame of a detector to the boxes of a submission."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dualdistill.evaluate.protocol import ATTRIBUTES
from dualdistill.evaluate.to_global import MOVING_SPEED, detections_to_global, likely_attributes
from dualdistill.geometry.transforms import (
    invert_rigid,
    rigid,
    rotation_from_quaternion,
    transform,
)
from dualdistill.structures import CLASSES, Boxes, SampleMeta
from tests.geometry.reference import rotation_about_z

RULES = {
    "car": ("vehicle.moving", "vehicle.parked"),
    "truck": ("vehicle.moving", "vehicle.parked"),
    "trailer": ("vehicle.moving", "vehicle.parked"),
    "construction_vehicle": ("vehicle.moving", "vehicle.parked"),
    "bus": ("vehicle.moving", "vehicle.stopped"),
    "motorcycle": ("cycle.with_rider", "cycle.without_rider"),
    "bicycle": ("cycle.with_rider", "cycle.without_rider"),
    "pedestrian": ("pedestrian.moving", "pedestrian.standing"),
    "barrier": ("", ""),
    "traffic_cone": ("", ""),
}
"""docs/methods/centerpoint.md#export: faster than 0.2 m/s, and otherwise."""


def somewhere(seed: int) -> SampleMeta:
    """A sample whose sensor sits turned on a car that stands, a little tilted, far from the map's origin."""
    random = torch.Generator().manual_seed(seed)
    tilt = torch.tensor([1.0, 0.02, -0.03, 0.0], dtype=torch.float64)
    tilt[3] = torch.rand((), generator=random) * 4 - 2
    global_from_ego = rigid(rotation_from_quaternion(tilt), torch.tensor([1234.5, 987.6, 0.0]).double())
    quarter = rotation_about_z(torch.tensor(-torch.pi / 2)).double()
    ego_from_bev = rigid(quarter, torch.tensor([0.94, 0.0, 1.84]).double())
    return SampleMeta(
        token="here",
        timestamp_us=0,
        global_from_bev=global_from_ego @ ego_from_bev,
        ego_from_bev=ego_from_bev,
    )


def random_detections(seed: int, count: int = 50) -> Boxes:
    random = torch.Generator().manual_seed(seed)
    return Boxes(
        center=torch.rand(count, 3, generator=random) * 30 - 15,
        size=torch.rand(count, 3, generator=random) + 0.5,
        yaw=torch.rand(count, generator=random) * 6 - 3,
        velocity=torch.randn(count, 2, generator=random),
        label=torch.randint(len(CLASSES), (count,), generator=random),
        score=torch.rand(count, generator=random),
    )


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("moving", [True, False])
def test_class_and_speed_decide_the_attribute(name: str, moving: bool) -> None:
    speed = MOVING_SPEED * (1.01 if moving else 1.0)
    attribute = likely_attributes(np.array([CLASSES.index(name)]), np.array([[0.0, -speed]]))[0]
    expected = RULES[name][0 if moving else 1]
    assert ("" if attribute < 0 else ATTRIBUTES[attribute]) == expected


def test_there_and_back_is_where_the_box_was() -> None:
    boxes, meta = random_detections(seed=0), somewhere(seed=0)
    assert boxes.score is not None
    boxes = boxes.select(boxes.score.argsort(descending=True))
    world = detections_to_global(boxes, meta)
    bev_from_global = invert_rigid(meta.global_from_bev)
    assert_close(transform(bev_from_global, torch.from_numpy(world.center)), boxes.center.double())
    assert_close(torch.from_numpy(world.size), boxes.size.double())
    rotation = bev_from_global[:3, :3] @ rotation_from_quaternion(torch.from_numpy(world.rotation))
    assert_close(rotation, rotation_about_z(boxes.yaw.double()))


def test_velocities_turn_with_the_frame() -> None:
    boxes = random_detections(seed=0)
    still = somewhere(seed=0)
    flat = replace(still, global_from_bev=rigid(rotation_about_z(torch.tensor(torch.pi / 2)), torch.zeros(3)).double())
    assert boxes.score is not None
    velocity = detections_to_global(boxes, flat).velocity
    expected = boxes.velocity.flip(1) * torch.tensor([-1.0, 1.0])
    assert_close(torch.from_numpy(velocity), expected[boxes.score.argsort(descending=True)].double())


def test_the_direction_of_travel_stays_the_heading() -> None:
    boxes = random_detections(seed=1)
    along = torch.stack([boxes.yaw.cos(), boxes.yaw.sin()], dim=1)
    world = detections_to_global(replace(boxes, velocity=along), somewhere(seed=1))
    np.testing.assert_allclose(np.arctan2(world.velocity[:, 1], world.velocity[:, 0]), world.yaw, atol=1e-6)


def test_boxes_past_the_range_of_their_class_are_dropped() -> None:
    """Range is measured from the ego vehicle, not from the sensor, which sits 0.94 m ahead of it."""
    car, cone = CLASSES.index("car"), CLASSES.index("traffic_cone")
    boxes = replace(
        random_detections(seed=0, count=4),
        center=torch.tensor([[0.0, 49.0, 0.0], [0.0, 49.1, 0.0], [0.0, -50.9, 0.0], [0.0, 29.1, 0.0]]),
        label=torch.tensor([car, car, car, cone]),
        score=torch.tensor([0.1, 0.2, 0.3, 0.4]),
    )
    quarter = rigid(rotation_about_z(torch.tensor(-torch.pi / 2)), torch.tensor([0.94, 0.0, 1.84])).double()
    meta = replace(somewhere(seed=0), ego_from_bev=quarter)
    np.testing.assert_allclose(detections_to_global(boxes, meta).score, [0.3, 0.1], rtol=1e-6)


def test_the_best_500_are_kept() -> None:
    boxes = random_detections(seed=0, count=700)
    assert boxes.score is not None
    kept = detections_to_global(boxes, somewhere(seed=0), sample=3)
    np.testing.assert_array_equal(kept.score, np.sort(boxes.score.double().numpy())[::-1][:500])
    assert (kept.sample == 3).all()


def test_no_boxes_are_no_detections() -> None:
    nothing = replace(Boxes.empty(), score=torch.zeros(0))
    assert len(detections_to_global(nothing, somewhere(seed=0))) == 0


def test_annotations_are_not_exported_by_mistake() -> None:
    with pytest.raises(ValueError, match="without score"):
        detections_to_global(Boxes.empty(), somewhere(seed=0))
