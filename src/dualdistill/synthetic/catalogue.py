"""The annotated kinds of objects: nuScenes category, distribution of sizes, and shapes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dualdistill.synthetic import people, roadworks, vehicles
from dualdistill.synthetic.mesh import Mesh, Vector

SLACK = 0.02
"""Metres between a mesh and its box, so that range noise does not push returns out of the box."""


@dataclass(frozen=True)
class Kind:
    """One sort of object."""

    category: str
    """Category of nuScenes."""
    shape: Callable[[np.random.Generator, Vector, bool], list[Mesh]]
    """Draw the parts of an object of (length, width, height), metres, that moves (or is ridden) or does not. Frame: x
    forward, y left, z up, ground at z = 0. Proportions only: they are stretched to the exact size afterwards."""
    size: Vector
    """Mean length, width, height, metres, near those of nuScenes' annotations."""
    spread: Vector
    """Standard deviation of each."""

    def draw(self, rng: np.random.Generator, moves: bool) -> tuple[Vector, Mesh]:
        """A size and a mesh that fills it, centred on the origin.

        Half of the spread is common to the three sides: an object is large or small as a whole, so that its
        apparent size hardly determines its distance.
        """
        common = rng.normal()
        steps = np.clip(0.7 * common + 0.7 * rng.normal(size=3), -2.2, 2.2)
        low = 0.55 * np.asarray(self.size)
        length, width, height = np.maximum(np.asarray(self.size) + steps * np.asarray(self.spread), low).round(3)
        size = (float(length), float(width), float(height))
        return size, Mesh.join(self.shape(rng, size, moves)).fitted(size, SLACK)


CAR = Kind("vehicle.car", vehicles.car, size=(4.6, 1.95, 1.72), spread=(0.45, 0.17, 0.22))
TRUCK = Kind("vehicle.truck", vehicles.truck, size=(7.0, 2.5, 2.85), spread=(1.9, 0.35, 0.7))
BUS = Kind("vehicle.bus.rigid", vehicles.bus, size=(11.0, 2.9, 3.4), spread=(1.5, 0.2, 0.3))
TRAILER = Kind("vehicle.trailer", vehicles.trailer, size=(11.0, 2.85, 3.8), spread=(2.6, 0.25, 0.5))
CONSTRUCTION = Kind("vehicle.construction", vehicles.construction_vehicle, size=(6.4, 2.8, 3.2), spread=(1.3, 0.4, 0.6))
BARRIER = Kind("movable_object.barrier", roadworks.barrier, size=(0.5, 2.4, 1.0), spread=(0.12, 0.45, 0.12))
MOTORCYCLE = Kind("vehicle.motorcycle", people.motorcycle, size=(2.1, 0.78, 1.3), spread=(0.2, 0.1, 0.12))
MOTORCYCLIST = Kind("vehicle.motorcycle", people.motorcycle, size=(2.1, 0.8, 1.65), spread=(0.2, 0.1, 0.1))
BICYCLE = Kind("vehicle.bicycle", people.bicycle, size=(1.7, 0.58, 1.05), spread=(0.14, 0.08, 0.08))
CYCLIST = Kind("vehicle.bicycle", people.bicycle, size=(1.75, 0.62, 1.72), spread=(0.14, 0.08, 0.12))
ADULT = Kind("human.pedestrian.adult", people.pedestrian, size=(0.72, 0.66, 1.75), spread=(0.14, 0.09, 0.12))
CHILD = Kind("human.pedestrian.child", people.pedestrian, size=(0.5, 0.5, 1.25), spread=(0.08, 0.06, 0.14))
WORKER = Kind("human.pedestrian.construction_worker", people.worker, size=(0.74, 0.7, 1.78), spread=(0.12, 0.08, 0.08))
CONE = Kind("movable_object.trafficcone", roadworks.traffic_cone, size=(0.42, 0.42, 0.95), spread=(0.09, 0.09, 0.2))
DEBRIS = Kind("movable_object.debris", roadworks.debris, size=(0.7, 0.6, 0.5), spread=(0.2, 0.15, 0.15))


def attribute(category: str, speed: float, *, parked: bool) -> str | None:
    """The nuScenes attribute of an object that moves at `speed` (m/s) or stands (parked, or for a moment)."""
    if category.startswith("human."):
        return "pedestrian.moving" if speed > 0.1 else "pedestrian.standing"
    if category in ("vehicle.bicycle", "vehicle.motorcycle"):
        return "cycle.without_rider" if parked else "cycle.with_rider"
    if category.startswith("vehicle."):
        return "vehicle.moving" if speed > 0.1 else "vehicle.parked" if parked else "vehicle.stopped"
    return None
