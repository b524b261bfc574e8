"""The annotated kinds of objects: nuScenes category, distribution of sizes, and shapes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dualdistill.synthetic import people, roadworks, vehicles
from dualdistill.synthetic.mesh import Mesh, Vector

SLACK = 0.02
"""Metres between a mesh and its box, so that range noise does not push returns out of the box."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One sort of object."""

    category: str
    """Category of nuScenes."""
    size: Vector
    """Mean length, width, height, metres, near those of nuScenes' annotations."""
    spread: Vector
    """Standard deviation of each."""
    shape: Callable[[np.random.Generator, Vector, bool], Mesh]
    """Draw a shape for a size, moving (or ridden) or not."""

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
        return size, self.shape(rng, size, moves).fitted(size, SLACK)


CAR = Kind(category="vehicle.car", size=(4.6, 1.95, 1.72), spread=(0.45, 0.17, 0.22), shape=vehicles.car)
TRUCK = Kind(category="vehicle.truck", size=(7.0, 2.5, 2.85), spread=(1.9, 0.35, 0.7), shape=vehicles.truck)
BUS = Kind(category="vehicle.bus.rigid", size=(11.0, 2.9, 3.4), spread=(1.5, 0.2, 0.3), shape=vehicles.bus)
TRAILER = Kind(category="vehicle.trailer", size=(11.0, 2.85, 3.8), spread=(2.6, 0.25, 0.5), shape=vehicles.trailer)
CONSTRUCTION = Kind(
    category="vehicle.construction",
    size=(6.4, 2.8, 3.2),
    spread=(1.3, 0.4, 0.6),
    shape=vehicles.construction_vehicle,
)
BARRIER = Kind(
    category="movable_object.barrier",
    size=(0.5, 2.4, 1.0),
    spread=(0.12, 0.45, 0.12),
    shape=roadworks.barrier,
)
MOTORCYCLE = Kind(
    category="vehicle.motorcycle", size=(2.1, 0.78, 1.3), spread=(0.2, 0.1, 0.12), shape=people.motorcycle
)
MOTORCYCLIST = Kind(
    category="vehicle.motorcycle", size=(2.1, 0.8, 1.65), spread=(0.2, 0.1, 0.1), shape=people.motorcycle
)
BICYCLE = Kind(category="vehicle.bicycle", size=(1.7, 0.58, 1.05), spread=(0.14, 0.08, 0.08), shape=people.bicycle)
CYCLIST = Kind(category="vehicle.bicycle", size=(1.75, 0.62, 1.72), spread=(0.14, 0.08, 0.12), shape=people.bicycle)
ADULT = Kind(
    category="human.pedestrian.adult",
    size=(0.72, 0.66, 1.75),
    spread=(0.14, 0.09, 0.12),
    shape=people.pedestrian,
)
CHILD = Kind(
    category="human.pedestrian.child",
    size=(0.5, 0.5, 1.25),
    spread=(0.08, 0.06, 0.14),
    shape=people.pedestrian,
)
WORKER = Kind(
    category="human.pedestrian.construction_worker",
    size=(0.74, 0.7, 1.78),
    spread=(0.12, 0.08, 0.08),
    shape=people.worker,
)
CONE = Kind(
    category="movable_object.trafficcone",
    size=(0.42, 0.42, 0.95),
    spread=(0.09, 0.09, 0.2),
    shape=roadworks.traffic_cone,
)
DEBRIS = Kind(category="movable_object.debris", size=(0.7, 0.6, 0.5), spread=(0.2, 0.15, 0.15), shape=roadworks.debris)


def attribute(category: str, speed: float, *, parked: bool) -> str | None:
    """The nuScenes attribute of an object that moves at `speed` (m/s) or stands (parked, or for a moment)."""
    if category.startswith("human."):
        return "pedestrian.moving" if speed > 0.1 else "pedestrian.standing"
    if category in ("vehicle.bicycle", "vehicle.motorcycle"):
        return "cycle.without_rider" if parked else "cycle.with_rider"
    if category.startswith("vehicle."):
        return "vehicle.moving" if speed > 0.1 else "vehicle.parked" if parked else "vehicle.stopped"
    return None
