"""The street: a curved main road, perhaps a crossing, and a picture of the ground between the houses."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

REACH = 120.0
"""The ground picture covers [-REACH, REACH]² metres around the first position of the ego car."""
PIXELS_PER_METRE = 8

TERRAIN, ASPHALT, PATCH, WHITE, YELLOW, PAVEMENT, KERB, PLAZA = range(8)
"""Codes of the ground picture."""
GROUND_REFLECTIVITY = np.array([0.3, 0.13, 0.1, 0.6, 0.5, 0.25, 0.3, 0.25])
"""Reflectivity for the LiDAR, by ground code."""


class Curve:
    """A line in the plane, by arc length, with a left-hand offset; beyond its ends it goes straight on."""

    def __init__(
        self, start: tuple[float, float, float], first: float, curvature: Float[np.ndarray, "steps"], step: float
    ):
        """`start`: x, y, heading at length 0; `curvature` (1/m): from length `first` on, every `step` m."""
        self._length = first + step * np.arange(len(curvature) + 1)
        heading = np.concatenate([[0.0], np.cumsum(curvature * step)])
        middle = (heading[:-1] + heading[1:]) / 2
        x = np.concatenate([[0.0], np.cumsum(np.cos(middle) * step)])
        y = np.concatenate([[0.0], np.cumsum(np.sin(middle) * step)])
        turn = start[2] - np.interp(0.0, self._length, heading)
        cos, sin = np.cos(turn), np.sin(turn)
        x, y = cos * x - sin * y, sin * x + cos * y
        self._x = x - np.interp(0.0, self._length, x) + start[0]
        self._y = y - np.interp(0.0, self._length, y) + start[1]
        self._heading = heading + turn

    @classmethod
    def straight(cls, x: float, y: float, heading: float) -> "Curve":
        return cls((x, y, heading), -1.0, np.zeros(2), 1.0)

    def at(
        self, length: float | Float[np.ndarray, "*places"], offset: float | Float[np.ndarray, "*places"] = 0.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y and heading at some arc lengths, `offset` metres to the left."""
        inside = np.clip(length, self._length[0], self._length[-1])
        beyond = np.asarray(length) - inside
        heading = np.interp(inside, self._length, self._heading)
        x = np.interp(inside, self._length, self._x) + beyond * np.cos(heading) - offset * np.sin(heading)
        y = np.interp(inside, self._length, self._y) + beyond * np.sin(heading) + offset * np.cos(heading)
        return np.asarray(x), np.asarray(y), np.asarray(heading)

    def ribbon(self, first: float, last: float, right: float, left: float) -> list[tuple[float, float]]:
        """Outline of the strip between two arc lengths and two offsets."""
        along = np.linspace(first, last, max(2, int(abs(last - first) / 2) + 1))
        x_left, y_left, _ = self.at(along, left)
        x_right, y_right, _ = self.at(along[::-1], right)
        return [(float(x), float(y)) for x, y in zip([*x_left, *x_right], [*y_left, *y_right], strict=True)]


@dataclass(frozen=True, kw_only=True)
class Street:
    """Offsets are to the left of the main road's middle line; traffic drives on the right."""

    main: Curve
    lanes: int
    """Number of lanes in each direction."""
    lane_width: float
    parking: float
    """Width of the parking strip on either side, 0 where there is none."""
    pavement: float
    """Width of the pavement on either side."""
    cross: Curve | None
    """A crossing road of one lane in each direction, arc length 0 on the main road's middle line."""
    cross_at: float
    """Arc length of the main road where it crosses."""

    @property
    def half(self) -> float:
        """Distance from the middle line to the kerb, metres."""
        return self.lanes * self.lane_width + self.parking

    @property
    def cross_half(self) -> float:
        return self.lane_width + 0.3

    def clear_of_crossing(self, length: float, margin: float) -> bool:
        """Whether a place along the main road keeps `margin` metres from the crossing road's edge."""
        return self.cross is None or bool(abs(length - self.cross_at) > self.cross_half + margin)


def draw_street(rng: np.random.Generator) -> Street:
    """A random street through the origin, in any direction."""
    step, first, last = 2.0, -150.0, 190.0
    along = np.arange(first, last, step)
    bend, wave = rng.normal(0.0, 1 / 220), abs(rng.normal(0.0, 1 / 200))
    curvature = bend + wave * np.sin(2 * np.pi * along / rng.uniform(60, 160) + rng.uniform(0, 2 * np.pi))
    main = Curve((0.0, 0.0, rng.uniform(-np.pi, np.pi)), first, np.clip(curvature, -1 / 60, 1 / 60), step)
    cross, cross_at = None, 0.0
    if rng.random() < 0.45:
        cross_at = rng.uniform(8.0, 38.0)
        x, y, heading = main.at(cross_at)
        cross = Curve.straight(float(x), float(y), float(heading) + np.pi / 2 + rng.uniform(-0.2, 0.2))
    return Street(
        main=main,
        lanes=int(rng.choice([1, 1, 2])),
        lane_width=rng.uniform(3.2, 3.7),
        parking=float(rng.choice([0.0, 2.3, 2.5])),
        pavement=rng.uniform(2.2, 5.0),
        cross=cross,
        cross_at=cross_at,
    )


class GroundPicture:
    """Codes of the ground around the origin, as a raster."""

    def __init__(self, codes: UInt8[np.ndarray, "y x"]):
        self.codes = codes

    def look_up(self, x: Float[np.ndarray, "*n"], y: Float[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
        """The code under each place; terrain outside of the picture."""
        height, width = self.codes.shape
        column = np.clip((x + REACH) * PIXELS_PER_METRE, 0, width - 1).astype(np.int32)
        row = np.clip((y + REACH) * PIXELS_PER_METRE, 0, height - 1).astype(np.int32)
        return self.codes[row, column]


def paint_ground(street: Street, rng: np.random.Generator) -> GroundPicture:
    """Terrain, pavements, kerbs, asphalt with worn patches, lane markings, zebra crossings."""
    side = int(2 * REACH * PIXELS_PER_METRE)
    image = Image.new("L", (side, side), TERRAIN)
    draw = ImageDraw.Draw(image)

    def fill(outline: list[tuple[float, float]], code: int) -> None:
        draw.polygon([((x + REACH) * PIXELS_PER_METRE, (y + REACH) * PIXELS_PER_METRE) for x, y in outline], fill=code)

    main, half, first, last = street.main, street.half, -130.0, 170.0
    for _ in range(rng.poisson(6)):
        start, offset = rng.uniform(-60, 100), rng.choice([-1, 1]) * (half + street.pavement)
        depth = np.sign(offset) * rng.uniform(5, 25)
        fill(
            main.ribbon(start, start + rng.uniform(8, 40), min(offset, offset + depth), max(offset, offset + depth)),
            PLAZA,
        )
    roads = [(main, half)] if street.cross is None else [(main, half), (street.cross, street.cross_half)]
    for extra, code in ((street.pavement, PAVEMENT), (0.25, KERB), (0.0, ASPHALT)):
        for curve, reach in roads:
            fill(curve.ribbon(first, last, -reach - extra, reach + extra), code)
    for _ in range(rng.poisson(14)):
        start, offset = rng.uniform(-60, 100), rng.uniform(-half, half - 1)
        fill(main.ribbon(start, start + rng.uniform(1, 9), offset, offset + rng.uniform(0.5, 2.0)), PATCH)

    lines = [(0.0, YELLOW if rng.random() < 0.5 else WHITE, bool(rng.random() < 0.6))]
    lines += [(side * lane * street.lane_width, WHITE, True) for lane in range(1, street.lanes) for side in (-1, 1)]
    lines += [(side * street.lanes * street.lane_width, WHITE, False) for side in (-1, 1)]
    stop_line = street.cross_half + 1.5
    pieces = [(first, last)]
    if street.cross is not None:
        pieces = [(first, street.cross_at - stop_line), (street.cross_at + stop_line, last)]
    for offset, code, dashed in lines:
        for begin, end in pieces:
            for start in np.arange(begin, end - 3.0, 9.0) if dashed else [begin]:
                fill(main.ribbon(start, start + 3.0 if dashed else end, offset - 0.09, offset + 0.09), code)
    if street.parking:
        for start in np.arange(first, last, 6.5):
            if street.clear_of_crossing(start, 3.0):
                for low in (-half, half - street.parking):
                    fill(main.ribbon(start, start + 0.12, low, low + street.parking), WHITE)
    zebras = (
        [rng.uniform(-20, 60)]
        if street.cross is None
        else [street.cross_at + side * (street.cross_half + 3) for side in (-1, 1)]
    )
    for start in zebras:
        for offset in np.arange(-half + 0.4, half - 0.5, 1.0):
            fill(main.ribbon(start - 1.3, start + 1.3, offset, offset + 0.5), WHITE)
    return GroundPicture(np.asarray(image))
