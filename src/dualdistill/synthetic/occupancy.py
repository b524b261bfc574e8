"""Occupied places of a scene, so that objects never intersect, even while they move."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from dualdistill.synthetic.plan import Track

Footprints = Float[np.ndarray, "times 5"]
"""x, y, yaw, half length, half width at each of the checked times."""


def footprints(track: Track, length: float, width: float, times: Float[np.ndarray, "times"]) -> Footprints:
    sides = np.broadcast_to([length / 2, width / 2], (len(times), 2))
    return np.concatenate([track.poses(times), sides], axis=1)


class Occupancy:
    """Rectangles of everything placed so far, at a few times of the scene."""

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
