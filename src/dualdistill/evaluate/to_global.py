"""Detections of a network, and the same in the global frame with the attributes the benchmark requires.

Source: docs/methods/centerpoint.md#export.
"""

import numpy as np
import torch
from jaxtyping import Float64, Int64

from dualdistill.errors import DivergedError
from dualdistill.evaluate.protocol import ATTRIBUTES, MAX_BOXES, REACH
from dualdistill.evaluate.records import Detections
from dualdistill.geometry.transforms import quaternion_from_rotation, transform
from dualdistill.structures import CLASSES, Batch, Boxes, Detector, SampleMeta


def detect(detector: Detector, batch: Batch) -> tuple[Boxes, ...]:
    """Detections of each sample of one batch, in its BEV frame. Raises DivergedError for outputs that are not
    finite."""
    output = detector(batch)
    found = detector.detect(output, batch)
    named = [("heatmap", output.predictions.heatmap), ("box", output.predictions.regression)]
    # Finite logarithms of sizes may still be infinite sizes.
    named += [(name, getattr(boxes, name)) for boxes in found for name in ("center", "size", "yaw", "velocity")]
    for name, values in named:
        if not values.isfinite().all():
            bad = float(values[~values.isfinite()][0])
            raise DivergedError(f"Its {name} output contains {bad}.")
    return found


MOVING_SPEED = 0.2
"""Speed above which an object counts as moving, metres a second."""

_VEHICLE = ("vehicle.moving", "vehicle.parked")
_CYCLE = ("cycle.with_rider", "cycle.without_rider")
_MOVING_AND_RESTING = {
    "car": _VEHICLE,
    "truck": _VEHICLE,
    "trailer": _VEHICLE,
    "construction_vehicle": _VEHICLE,
    "bus": ("vehicle.moving", "vehicle.stopped"),
    "motorcycle": _CYCLE,
    "bicycle": _CYCLE,
    "pedestrian": ("pedestrian.moving", "pedestrian.standing"),
}
"""Attributes of a moving and of a resting object: the detectors here predict none. Other classes have none."""

_ATTRIBUTE_IDS = np.array(
    [[ATTRIBUTES.index(name) for name in _MOVING_AND_RESTING.get(klass, ())] or [-1, -1] for klass in CLASSES]
)
"""Attribute id by label, then moving or resting."""


def likely_attributes(
    label: Int64[np.ndarray, "boxes"], velocity: Float64[np.ndarray, "boxes 2"]
) -> Int64[np.ndarray, "boxes"]:
    """The likelier attribute id of each box by its class and speed; unknown velocities (NaN) count as rest."""
    moving = np.linalg.norm(velocity, axis=1) > MOVING_SPEED
    return _ATTRIBUTE_IDS[label, np.where(moving, 0, 1)]


def detections_to_global(boxes: Boxes, meta: SampleMeta, *, sample: int = 0) -> Detections:
    """The detections of one sample in the global frame, best first.

    Boxes past the range of their class, measured in the ego plane, are dropped, then all but the best `MAX_BOXES`.
    Raises ValueError for boxes without score.

    Args:
        boxes: In the BEV frame of `meta`, without test-time augmentation.
        sample: Position of the sample in the list of evaluated ones.
    """
    if boxes.score is None:
        raise ValueError("expected detections, got boxes without score")
    boxes = boxes.to("cpu")
    assert boxes.score is not None
    center_bev = boxes.center.double()
    center_ego = transform(meta.ego_from_bev.cpu().double(), center_bev)
    label = boxes.label.numpy().astype(np.int64)
    near = center_ego[:, :2].norm(dim=1).numpy() <= REACH[label]

    score = boxes.score.numpy().astype(np.float64)
    best_first = np.argsort(-score, kind="stable")
    keep = best_first[near[best_first]][:MAX_BOXES]

    global_from_bev = meta.global_from_bev.cpu().double()
    rotation = global_from_bev[:3, :3]
    velocity_bev = torch.nn.functional.pad(boxes.velocity.double(), (0, 1))
    velocity = (velocity_bev @ rotation.mT)[:, :2].numpy()
    half_yaw = boxes.yaw.double().numpy() / 2
    zero = np.zeros_like(half_yaw)
    about_z = np.stack([np.cos(half_yaw), zero, zero, np.sin(half_yaw)], axis=1)
    return Detections(
        sample=np.full(len(label), sample, dtype=np.int64),
        label=label,
        center=transform(global_from_bev, center_bev).numpy(),
        size=boxes.size.double().numpy(),
        rotation=_compose(quaternion_from_rotation(rotation).numpy(), about_z),
        velocity=velocity,
        attribute=likely_attributes(label, velocity),
        num_points=np.full(len(label), -1, dtype=np.int64),
        score=score,
    ).select(keep)


def _compose(first: Float64[np.ndarray, "4"], then: Float64[np.ndarray, "boxes 4"]) -> Float64[np.ndarray, "boxes 4"]:
    """Hamilton product `first * then`: the rotation `then` followed by `first`."""
    w, x, y, z = first
    matrix = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    return then @ matrix.T
