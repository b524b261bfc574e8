"""Draws the plan of a scene: street, light, ego motion, traffic, and what stands along the road."""

from collections.abc import Callable

import numpy as np

from dualdistill.synthetic import clutter
from dualdistill.synthetic.config import SyntheticConfig
from dualdistill.synthetic.mesh import Mesh
from dualdistill.synthetic.plan import Daylight, Prop, ScenePlan, Sway, Track, scene_generator
from dualdistill.synthetic.rig import pose
from dualdistill.synthetic.street import Street, draw_street, paint_ground
from dualdistill.synthetic.traffic import Occupancy, Traffic

EGO_LENGTH, EGO_WIDTH = 4.6, 1.9
"""Metres, centred on the ego frame: good enough to keep others out of the car."""

_TERRAINS = ((0.12, 0.2, 0.06), (0.25, 0.22, 0.12), (0.2, 0.2, 0.2), (0.3, 0.27, 0.22))


def draw_scene(config: SyntheticConfig, split: str, index: int) -> ScenePlan:
    """The plan of scene `index` of `split` ("train" or "val")."""
    rng = scene_generator(config, split, index)
    street = draw_street(rng)
    lane = -(rng.integers(street.lanes) + 0.5) * street.lane_width
    speed = float(rng.choice([0.0, rng.uniform(1.5, 4.5), rng.uniform(5.0, 10.0)], p=[0.08, 0.3, 0.62]))
    ego = Track(curve=street.main, length=0.0, offset=lane, speed=speed)
    lead_in = config.lead_in_sweeps / config.lidar_rate
    occupancy = Occupancy(np.arange(-lead_in, config.duration + 0.25, 0.25).tolist())
    occupancy.take(ego, EGO_LENGTH + 3.0, EGO_WIDTH)
    props = _Roadside(street, occupancy, rng)
    props.houses()
    traffic = Traffic(street, ego, occupancy, rng, config.reach)
    actors = traffic.draw()
    props.furniture()
    return ScenePlan(
        street=street,
        ground=paint_ground(street, rng),
        terrain=_TERRAINS[rng.integers(len(_TERRAINS))],
        actors=actors,
        props=tuple(props.placed),
        daylight=draw_daylight(rng),
        ego=ego,
        sway=Sway(
            amplitude=np.radians(rng.uniform(0.1, 0.5, 2)) * min(1.0, speed / 3),
            frequency=rng.uniform(0.3, 1.2, 2),
            phase=rng.uniform(0, 2 * np.pi, 2),
        ),
        origin=(float(rng.integers(300, 2400)), float(rng.integers(300, 2400))),
        description=f"Synthetic street, {2 * street.lanes} lanes, ego at {speed:.1f} m/s"
        + (", crossing" if street.cross is not None else ""),
    )


def draw_daylight(rng: np.random.Generator) -> Daylight:
    """Sun, clouds or a low sun; colours as linear light."""
    weather = rng.choice(3, p=[0.5, 0.35, 0.15])
    altitude = np.radians((rng.uniform(30, 65), 80.0, rng.uniform(12, 25))[weather])
    direction = rng.uniform(-np.pi, np.pi)
    sun = np.array([np.cos(altitude) * np.cos(direction), np.cos(altitude) * np.sin(direction), np.sin(altitude)])
    sun_color = np.array([(1.0, 0.95, 0.86), (0.45, 0.46, 0.47), (1.0, 0.75, 0.5)][weather]) * rng.uniform(0.85, 1.15)
    sky = np.array([(0.28, 0.42, 0.68), (0.5, 0.53, 0.57), (0.26, 0.33, 0.5)][weather]) * rng.uniform(0.8, 1.2)
    horizon = np.array([(0.6, 0.68, 0.78), (0.62, 0.64, 0.66), (0.75, 0.6, 0.48)][weather])
    return Daylight(
        sun=sun,
        sun_color=sun_color,
        sky_color=sky,
        horizon_color=horizon,
        haze=rng.uniform(150, 600),
        exposure=rng.uniform(0.85, 1.2),
    )


class _Roadside:
    """Places props beside the road where there is room."""

    def __init__(self, street: Street, occupancy: Occupancy, rng: np.random.Generator):
        self._street, self._occupancy, self._rng = street, occupancy, rng
        self.placed: list[Prop] = []

    def _put(
        self, parts: list[Mesh], place: float, offset: float, turn: float = 0.0, gap: float = 0.1, cross: bool = False
    ) -> bool:
        curve = self._street.cross if cross and self._street.cross is not None else self._street.main
        track = Track(curve=curve, length=place, offset=offset, turn=turn)
        mesh = Mesh.join(parts)
        low, high = mesh.triangles.reshape(-1, 3).min(axis=0), mesh.triangles.reshape(-1, 3).max(axis=0)
        length, width, _ = 2 * np.maximum(np.abs(low), np.abs(high))
        if not self._occupancy.take(track, float(length), float(width), gap):
            return False
        x, y, yaw = track.at(0.0)
        self.placed.append(Prop(mesh=mesh, street_from_prop=pose((x, y, 0.0), yaw=yaw)))
        return True

    def houses(self) -> None:
        """Two rows of houses, walls and hedges where there are gaps, towers on the horizon."""
        rng, street = self._rng, self._street
        edge = street.half + street.pavement
        for side in (-1, 1):
            built, place = rng.uniform(0.3, 0.95), -75.0
            setback = rng.uniform(0.3, 8.0)
            while place < 115:
                length = rng.uniform(7, 19)
                middle = place + length / 2
                if street.clear_of_crossing(middle, length / 2 + street.pavement + 1):
                    if rng.random() < built:
                        depth = rng.uniform(7, 14)
                        offset = edge + setback + abs(rng.normal(0, 0.8)) + depth / 2 + length**2 / 480
                        self._put(clutter.house(rng, length - 0.4, depth), middle, side * offset)
                    elif rng.random() < 0.7:
                        self._put(clutter.wall(rng, length - 1.0), middle, side * (edge + rng.uniform(0.6, 1.5)))
                place += length + (rng.uniform(1, 8) if rng.random() < 0.25 else 0.0)
            if street.cross is not None:
                for place in np.arange(edge + 14, 90, 15.0):
                    depth = rng.uniform(7, 12)
                    offset = street.cross_half + street.pavement + 1.5 + depth / 2
                    for flank in (-1, 1):
                        self._put(
                            clutter.house(rng, rng.uniform(8, 14), depth), side * place, flank * offset, cross=True
                        )
        for direction in np.arange(0, 2 * np.pi, 2 * np.pi / 26):
            mesh, reach = clutter.tower(rng), rng.uniform(125, 170)
            x, y, turn = reach * np.cos(direction), reach * np.sin(direction), rng.uniform(0, 2)
            self.placed.append(Prop(mesh=mesh, street_from_prop=pose((x, y, 0.0), yaw=direction + turn)))

    def furniture(self) -> None:
        """Lamps, signs, trees, bins, shelters at the kerb; bushes and boxes behind the pavement."""
        rng, street = self._rng, self._street
        edge = street.half + street.pavement
        for side in (-1, 1):
            kerb = street.half + 0.45
            towards_road = 0.0 if side < 0 else np.pi
            for place in np.arange(-60 + rng.uniform(0, 15), 100, rng.uniform(16, 30)):
                self._put(clutter.lamp_post(rng), place, side * kerb, towards_road, gap=-2.0)
            if rng.random() < 0.6:
                for place in np.arange(-55 + rng.uniform(0, 9), 90, rng.uniform(7, 16)):
                    if street.clear_of_crossing(place, 4.0):
                        self._put(clutter.tree(rng), place, side * (kerb + 0.4), gap=-1.5)
            if street.cross is not None:
                corner = street.cross_at - side * -(street.cross_half + 1.0)
                self._put(clutter.traffic_light(rng), corner, side * kerb, 0.0)
            self._scatter(clutter.sign, 4, side, kerb, 0.3)
            self._scatter(clutter.bollard, 5, side, kerb, 0.2)
            self._scatter(clutter.bin_, 3, side, edge - 0.5, 0.4)
            self._scatter(clutter.cabinet, 1.5, side, edge + 2.0, 1.5)
            self._scatter(clutter.bush, 6, side, edge + 1.5, 2.5)
            self._scatter(clutter.tree, 4, side, edge + 5.0, 4.0)
            if rng.random() < 0.3:
                self._put(clutter.shelter(rng), rng.uniform(-20, 40), side * (edge - 1.0), towards_road)

    def _scatter(
        self, build: Callable[[np.random.Generator], list[Mesh]], mean: float, side: int, offset: float, spread: float
    ) -> None:
        """A random number of things around some offset."""
        rng = self._rng
        for _ in range(rng.poisson(mean)):
            place = rng.uniform(-45, 70)
            if self._street.clear_of_crossing(place, 2.0):
                self._put(build(rng), place, side * (offset + abs(rng.normal(0, spread))), rng.normal(0, 0.2))
