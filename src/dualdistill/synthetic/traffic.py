"""The annotated objects of a scene: traffic, parked vehicles, pedestrians and road works."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from dualdistill.synthetic import catalogue
from dualdistill.synthetic.catalogue import Kind
from dualdistill.synthetic.config import FULL_REACH
from dualdistill.synthetic.plan import Actor, Track
from dualdistill.synthetic.street import Curve, Street

Footprints = Float[np.ndarray, "times 5"]
"""x, y, yaw, half length, half width at each of the checked times."""


def footprints(track: Track, length: float, width: float, times: Float[np.ndarray, "times"]) -> Footprints:
    sides = np.broadcast_to([length / 2, width / 2], (len(times), 2))
    return np.concatenate([track.poses(times), sides], axis=1)


class Occupancy:
    """Rectangles of everything placed so far, at a few times of the scene, so that objects never intersect."""

    def __init__(self, times: Sequence[float]):
        self.times = np.asarray(times, dtype=np.float64)
        self._placed = np.zeros((0, len(self.times), 5))

    def take(self, track: Track, length: float, width: float, gap: float = 0.3) -> bool:
        """Occupy the place if nothing comes closer than `gap` metres to it; returns whether it was free."""
        wanted = footprints(track, length + 2 * gap, width + 2 * gap, self.times)
        if _overlap(wanted, self._placed).any():
            return False
        placed = footprints(track, length, width, self.times)
        self._placed = np.concatenate([self._placed, placed[None]])
        return True


def _overlap(one: Footprints, many: Float[np.ndarray, "others times 5"]) -> Bool[np.ndarray, "others"]:
    """Whether rectangles meet at any time, by separating axes."""
    between = many[..., :2] - one[:, :2]  # others times 2
    reach = np.hypot(many[..., 3], many[..., 4]) + np.hypot(one[:, 3], one[:, 4])
    near = (np.einsum("otd,otd->ot", between, between) < reach**2).any(axis=1)
    meets = np.zeros(len(many), dtype=bool)
    many, between = many[near], between[near]
    apart = np.zeros(many.shape[:2], dtype=bool)
    for angles in (one[:, 2], one[:, 2] + np.pi / 2, many[..., 2], many[..., 2] + np.pi / 2):
        distance = np.abs(between[..., 0] * np.cos(angles) + between[..., 1] * np.sin(angles))
        apart |= distance > _reach(one, angles) + _reach(many, angles)
    meets[near] = (~apart).any(axis=1)
    return meets


def _reach(rectangle: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Half the extent of rectangles along a direction."""
    relative = rectangle[..., 2] - angle
    return rectangle[..., 3] * np.abs(np.cos(relative)) + rectangle[..., 4] * np.abs(np.sin(relative))


_DRIVEN = ((catalogue.CAR, 0.7), (catalogue.TRUCK, 0.11), (catalogue.BUS, 0.09), (catalogue.MOTORCYCLIST, 0.1))
_PARKED = ((catalogue.CAR, 0.8), (catalogue.TRUCK, 0.1), (catalogue.TRAILER, 0.09), (catalogue.MOTORCYCLE, 0.04))


class Traffic:
    """Places objects one after the other; whatever would collide with earlier ones is left out."""

    def __init__(
        self, street: Street, ego: Track, occupancy: Occupancy, rng: np.random.Generator, reach: float = FULL_REACH
    ):
        """`reach`: metres along the road, ahead of the ego car, up to which objects are placed; behind it, 9/11 of
        them."""
        self._street, self._ego, self._occupancy, self._rng = street, ego, occupancy, rng
        self._ahead, self._behind, self._scale = reach, -reach * 45 / 55, reach / FULL_REACH
        self.actors: list[Actor] = []

    def draw(self) -> tuple[Actor, ...]:
        """Everybody."""
        rng = self._rng
        if rng.random() < 0.65:
            self._road_works()
        for lane in range(self._street.lanes):
            for direction in (1, -1):
                self._lane(direction * -(lane + 0.5) * self._street.lane_width, direction)
        if self._street.cross is not None:
            self._crossing_traffic(self._street.cross)
        for side in (-1, 1):
            self._roadside(side)
            self._pavement(side)
        for _ in range(rng.poisson(1.5)):
            self._crossing_pedestrian()
        for _ in range(rng.poisson(0.6)):
            offset = rng.uniform(-self._street.half, self._street.half)
            self._place(catalogue.DEBRIS, self._track(self._along(), offset, turn=rng.uniform(0, 3)))
        return tuple(self.actors)

    def _track(self, length: float, offset: float, **motion: float) -> Track:
        """A track beside the main road."""
        return Track(curve=self._street.main, length=length, offset=offset, **motion)

    def _along(self) -> float:
        """A place along the road, denser near the ego car."""
        spread = self._scale * self._rng.normal(6.0, 20.0)
        return self._ego.length + float(np.clip(spread, self._behind, self._ahead))

    def _choose(self, kinds: tuple[tuple[Kind, float], ...]) -> Kind:
        share = np.array([weight for _, weight in kinds])
        return kinds[self._rng.choice(len(kinds), p=share / share.sum())][0]

    def _place(self, kind: Kind, track: Track, *, parked: bool = False, gap: float = 0.25) -> Actor | None:
        rides = kind in (catalogue.CYCLIST, catalogue.MOTORCYCLIST)
        walks = kind.category.startswith("human.") and (track.speed, track.drift) != (0, 0)
        size, mesh = kind.draw(self._rng, rides or walks)
        if not self._occupancy.take(track, size[0], size[1], gap):
            return None
        actor = Actor(category=kind.category, size=size, mesh=mesh, track=track, parked=parked)
        self.actors.append(actor)
        return actor

    def _lane(self, offset: float, direction: int) -> None:
        """Vehicles in one lane; all of them equally fast, so that they keep their distances."""
        rng = self._rng
        own = direction > 0 and abs(offset - self._ego.offset) < 1.0
        queue = not own and rng.random() < 0.15
        speed = self._ego.speed if own else 0.0 if queue else rng.uniform(3.0, 12.0)
        place = self._ego.length + self._behind + self._scale * rng.uniform(0, 20)
        sparse = rng.uniform(9.0, 34.0)
        while place < self._ego.length + self._ahead + (0 if speed == 0 else 10 * self._scale):
            kind = self._choose(_DRIVEN)
            lateral, turn = offset + rng.normal(0, 0.15), (0.0 if direction > 0 else np.pi) + rng.normal(0, 0.015)
            track = self._track(place, lateral, speed=direction * speed, turn=turn)
            actor = self._place(kind, track, gap=0.8)
            if actor is not None and actor.category == "vehicle.truck" and rng.random() < 0.35:
                back = actor.size[0] / 2 + catalogue.TRAILER.size[0] / 2 + 2.5
                behind = replace(actor.track, length=actor.track.length - direction * back)
                self._place(catalogue.TRAILER, behind, parked=actor.parked)
            place += (actor.size[0] if actor else 2.0) + rng.exponential(sparse) + (1.5 if speed == 0 else 5.0)

    def _crossing_traffic(self, cross: Curve) -> None:
        rng = self._rng
        for direction in (1, -1):
            waits = rng.random() < 0.5
            for _ in range(rng.poisson(1.6)):
                away = rng.uniform(self._street.half + 5, 32.0)
                track = Track(
                    curve=cross,
                    length=-direction * away if waits else rng.uniform(-30, 30),
                    offset=-direction * self._street.lane_width / 2,
                    speed=0.0 if waits else direction * rng.uniform(3.0, 9.0),
                    turn=0.0 if direction > 0 else np.pi,
                )
                self._place(self._choose(_DRIVEN), track, gap=0.8)

    def _roadside(self, side: int) -> None:
        """Parked vehicles: on the parking strip, or a few beyond the pavement."""
        rng, street = self._rng, self._street
        direction = -side if rng.random() < 0.9 else side
        on_strip = street.parking > 0
        offset = side * (street.half - street.parking / 2 if on_strip else street.half + street.pavement + 3.5)
        across = not on_strip and rng.random() < 0.5
        filled = rng.uniform(0.15, 0.75) if on_strip else rng.uniform(0.0, 0.4)
        place = self._ego.length + self._behind + rng.uniform(0, 6)
        while place < self._ego.length + self._ahead:
            step = 3.0 if across else 6.5
            if rng.random() < filled and street.clear_of_crossing(place, 8.0):
                turn = (0.0 if direction > 0 else np.pi) + rng.normal(0, 0.03) + (np.pi / 2 if across else 0.0)
                kind = catalogue.CAR if across else self._choose(_PARKED)
                actor = self._place(kind, self._track(place, offset + rng.normal(0, 0.1), turn=turn), parked=True)
                step = max(step, actor.size[0] + 1.5) if actor and not across else step
            place += step

    def _pavement(self, side: int) -> None:
        """Pedestrians alone and in groups, parked and moving cycles."""
        rng, street = self._rng, self._street
        busy = rng.uniform(0.5, 6.0)
        for _ in range(rng.poisson(busy)):
            place, lateral = self._along(), street.half + rng.uniform(0.5, street.pavement - 0.3)
            speed = 0.0 if rng.random() < 0.3 else rng.choice([-1, 1]) * rng.uniform(0.7, 1.7)
            for _ in range(1 + rng.poisson(0.35)):
                heading = (
                    rng.uniform(-np.pi, np.pi) if speed == 0 else (0.0 if speed > 0 else np.pi) + rng.normal(0, 0.1)
                )
                length, offset = place + rng.normal(0, 0.9), side * (lateral + rng.normal(0, 0.5))
                track = self._track(length, offset, speed=speed, turn=heading)
                self._place(catalogue.CHILD if rng.random() < 0.1 else catalogue.ADULT, track, gap=0.1)
        for _ in range(rng.poisson(0.9)):
            row, turn = self._along(), rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.15)
            kind = catalogue.BICYCLE if rng.random() < 0.65 else catalogue.MOTORCYCLE
            for number in range(rng.integers(1, 4)):
                offset = side * (street.half + 0.9)
                track = self._track(row + 1.2 * number, offset, turn=turn + rng.normal(0, 0.1))
                self._place(kind, track, parked=True, gap=0.1)
        for _ in range(rng.poisson(0.5)):
            place, offset = self._along(), side * (street.half - street.parking - 0.6)
            speed, turn = -side * rng.uniform(2.5, 6.0), (0.0 if side < 0 else np.pi) + rng.normal(0, 0.05)
            self._place(catalogue.CYCLIST, self._track(place, offset, speed=speed, turn=turn))

    def _crossing_pedestrian(self) -> None:
        rng = self._rng
        way = int(rng.choice([-1, 1]))
        place = self._ego.length + self._scale * rng.uniform(8, 40)
        offset = -way * rng.uniform(-1.0, self._street.half + 1.5)
        drift, turn = way * rng.uniform(0.8, 1.6), way * np.pi / 2 + rng.normal(0, 0.1)
        self._place(catalogue.ADULT, self._track(place, offset, drift=drift, turn=turn), gap=0.2)

    def _road_works(self) -> None:
        """A fenced-off strip at the kerb: cones lead around it; barriers, machines and workers."""
        rng, street = self._rng, self._street
        side = int(rng.choice([-1, 1]))
        start = self._ego.length + self._scale * rng.uniform(-14, 22)
        length = rng.uniform(10, 24)
        edge = street.half - (street.parking or 1.0)
        deep = street.half + rng.uniform(0.5, 2.0)

        def put(kind: Kind, place: float, offset: float, turn: float, speed: float = 0.0, parked: bool = False) -> None:
            self._place(kind, self._track(place, side * offset, speed=speed, turn=turn), parked=parked, gap=0.05)

        if rng.random() < 0.8:
            turn = rng.choice([0.0, np.pi]) + rng.normal(0, 0.2)
            put(catalogue.CONSTRUCTION, start + rng.uniform(0.3, 0.7) * length, edge + 2.4, turn, parked=True)
        if rng.random() < 0.75:
            gap = rng.choice([0.1, 0.1, 1.0])
            place = start
            while place < start + length:
                put(catalogue.BARRIER, place, edge, np.pi / 2 * rng.choice([-1, 1]) + rng.normal(0, 0.06))
                place += catalogue.BARRIER.size[1] + 0.7 + gap
        if rng.random() < 0.75:
            count = rng.integers(3, 8)
            for share in np.linspace(0, 1, count):
                put(catalogue.CONE, start - 1.5 - 9 * share, edge + (deep - edge) * share, rng.uniform(0, np.pi))
            for place in np.arange(start, start + length, rng.uniform(2.5, 5.0)):
                put(catalogue.CONE, place, edge - 0.6, rng.uniform(0, np.pi))
        for _ in range(rng.poisson(1.3)):
            speed = 0.0 if rng.random() < 0.6 else rng.uniform(0.5, 1.2)
            place, offset = start + rng.uniform(0, 1) * length, edge + rng.uniform(0.6, 3.5)
            put(catalogue.WORKER, place, offset, rng.uniform(-np.pi, np.pi) if speed == 0 else 0.0, speed)
        if rng.random() < 0.3:
            put(catalogue.TRUCK, start + length + 6, edge + 1.3, 0.0, parked=True)
