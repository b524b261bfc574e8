"""A spinning LiDAR: one revolution of a scene, without rolling shutter."""

import numpy as np
from jaxtyping import Float, Float32

from dualdistill.synthetic.mesh import GROUND, REFLECTIVITY, REFLECTOR
from dualdistill.synthetic.plan import ScenePlan
from dualdistill.synthetic.raycast import Hits, Moment
from dualdistill.synthetic.rig import Lidar, Matrix
from dualdistill.synthetic.street import GROUND_REFLECTIVITY

MAX_RANGE = 70.0
"""Metres."""
RANGE_NOISE = 0.015
"""Standard deviation, metres."""
DROPOUT = 0.03
"""Share of returns lost for no reason."""
THRESHOLD = 0.006
"""Echo strength (reflectivity, cosine of incidence, 30 m / range squared) of which 63 % are noticed."""


def scan(
    moment: Moment, plan: ScenePlan, lidar: Lidar, street_from_lidar: Matrix, azimuths: int, rng: np.random.Generator
) -> tuple[Float32[np.ndarray, "points 5"], np.ndarray]:
    """x, y, z (metres, sensor frame), intensity (0 to 255), ring; and the actor of each return (-1: none)."""
    around = rng.uniform(0, 2 * np.pi) + np.arange(azimuths) * (2 * np.pi / azimuths)
    elevation = lidar.elevations[:, None]
    directions = np.stack(
        np.broadcast_arrays(np.cos(elevation) * np.cos(around), np.cos(elevation) * np.sin(around), np.sin(elevation)),
        axis=-1,
    ).reshape(-1, 3)
    ring = np.repeat(np.arange(len(lidar.elevations)), azimuths)
    directions_street = (directions @ street_from_lidar[:3, :3].T).astype(np.float32)
    hits = moment.cast(street_from_lidar[:3, 3], directions_street)

    rows = np.flatnonzero(hits.distance < MAX_RANGE)
    distance = hits.distance[rows].astype(np.float64)
    incidence = np.abs(np.einsum("nd,nd->n", hits.normal[rows], directions_street[rows]))
    reflectivity = _reflectivity(moment, plan, hits, rows, street_from_lidar[:3, 3], directions_street)
    echo = reflectivity * incidence * (30.0 / np.maximum(distance, 3.0)) ** 2
    noticed = (1 - DROPOUT) * (1 - np.exp(-echo / THRESHOLD))
    kept = rng.random(len(rows)) < noticed
    rows, distance, incidence, reflectivity = rows[kept], distance[kept], incidence[kept], reflectivity[kept]
    distance = distance + rng.normal(0.0, RANGE_NOISE, len(rows))
    intensity = 110 * reflectivity**1.3 * np.sqrt(incidence) * rng.uniform(0.8, 1.2, len(rows))
    points = np.column_stack([directions[rows] * distance[:, None], np.clip(intensity, 0, 255).round(), ring[rows]])
    return points.astype(np.float32), hits.owner[rows]


def _reflectivity(
    moment: Moment,
    plan: ScenePlan,
    hits: Hits,
    rows: np.ndarray,
    origin: Float[np.ndarray, "3"],
    directions: Float[np.ndarray, "rays 3"],
) -> Float[np.ndarray, "hits"]:
    """Intensities of the hits in `rows`: by material, higher for light paint; by ground code on the ground."""
    face = hits.face[rows]
    material = moment.stage.material[face]
    result = REFLECTIVITY[material] * (0.5 + moment.stage.color[face].mean(axis=1))
    mirrors = material == REFLECTOR
    result[mirrors] = 2.0
    ground = np.flatnonzero(material == GROUND)
    place = origin[:2] + directions[rows[ground], :2] * hits.distance[rows[ground], None]
    result[ground] = GROUND_REFLECTIVITY[plan.ground.look_up(place[:, 0], place[:, 1])]
    return result
