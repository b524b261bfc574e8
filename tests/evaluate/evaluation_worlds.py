"""Small worlds to evaluate detections in."""

from dataclasses import replace

import numpy as np

from dualdistill.evaluate.protocol import ATTRIBUTES
from dualdistill.evaluate.records import Detections, GlobalBoxes, GroundTruth
from dualdistill.structures import CLASSES


def boxes_of(count: int, **columns: object) -> GlobalBoxes:
    """`count` equal cars at the origin of sample 0, but for the given columns (one value, or one a row)."""
    plain = GlobalBoxes(
        sample=np.zeros(count, np.int64),
        label=np.zeros(count, np.int64),
        center=np.zeros((count, 3)),
        size=np.tile([4.0, 2.0, 1.5], (count, 1)),
        rotation=np.tile([1.0, 0.0, 0.0, 0.0], (count, 1)),
        velocity=np.zeros((count, 2)),
        attribute=np.full(count, ATTRIBUTES.index("vehicle.parked")),
        num_points=np.full(count, -1),
    )
    shaped = {
        name: np.broadcast_to(np.asarray(value, getattr(plain, name).dtype), getattr(plain, name).shape)
        for name, value in columns.items()
    }
    return replace(plain, **shaped)


def world_of(boxes: GlobalBoxes, *, samples: int = 1, scenes: int = 1, racks: GlobalBoxes | None = None) -> GroundTruth:
    """Samples with the ego vehicle at the origin."""
    return GroundTruth(
        sample_tokens=tuple(f"sample-{i}" for i in range(samples)),
        ego_position=np.zeros((samples, 3)),
        scene=np.arange(samples) * scenes // samples,
        boxes=boxes,
        racks=racks or GlobalBoxes.empty(),
    )


def random_boxes(seed: int, count: int = 300, samples: int = 6) -> GlobalBoxes:
    """All classes, within every range, samples ascending, everything known."""
    random = np.random.default_rng(seed)
    yaw = random.uniform(-np.pi, np.pi, count)
    return boxes_of(
        count,
        sample=np.sort(random.integers(samples, size=count)),
        label=random.integers(len(CLASSES), size=count),
        center=random.uniform(-20, 20, (count, 3)),
        size=random.uniform(0.5, 5, (count, 3)),
        rotation=np.stack([np.cos(yaw / 2), 0 * yaw, 0 * yaw, np.sin(yaw / 2)], axis=1),
        velocity=random.normal(size=(count, 2)),
        attribute=random.integers(len(ATTRIBUTES), size=count),
        num_points=random.integers(1, 50, size=count),
    )


def noisy_detections(boxes: GlobalBoxes, seed: int) -> Detections:
    """Most of `boxes`, moved and misread, with scores that all differ."""
    random = np.random.default_rng(seed)
    found = boxes.select(random.random(len(boxes)) < 0.8)
    moved = replace(
        found,
        center=found.center + random.normal(size=found.center.shape),
        size=found.size * np.exp(0.2 * random.normal(size=found.size.shape)),
        velocity=found.velocity + random.normal(size=found.velocity.shape),
        num_points=np.full(len(found), -1),
    )
    return Detections.of(moved, random.permutation(len(found)) / len(found))


def oracle(boxes: GlobalBoxes, seed: int = 0) -> Detections:
    """The annotations themselves, with some scores."""
    return Detections.of(boxes, np.random.default_rng(seed).uniform(0.1, 1, len(boxes)))
