"""What a camera and a LiDAR record of the things that their rays meet.

A picture has light, haze and noise; colours are fixed to the place or to the thing, so that they are the same in every
picture. Arrays of vectors lie `[3, hits]` there: NumPy is several times faster along long rows. The LiDAR gives one
revolution of a scene, without rolling shutter.
"""

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from dualdistill.synthetic.mesh import FACADE, GLASS, GRAIN, GROUND, PAINT, REFLECTIVITY, REFLECTOR
from dualdistill.synthetic.plan import Daylight, ScenePlan
from dualdistill.synthetic.raycast import Hits, Moment, Stage
from dualdistill.synthetic.rig import Camera, Lidar, Matrix
from dualdistill.synthetic.street import ASPHALT, GROUND_REFLECTIVITY, KERB, PATCH, PAVEMENT, PLAZA, WHITE, YELLOW

Planes = Float32[np.ndarray, "3 hits"]

SHADOW_REACH = 60.0
"""Metres from the camera up to which shadows are cast."""
READ_NOISE, SHOT_NOISE = 0.004, 0.012
"""Standard deviations of the sensor's noise, in the dark and growing with the root of the light."""

MAX_RANGE = 70.0
"""Metres."""
RANGE_NOISE = 0.015
"""Standard deviation, metres."""
DROPOUT = 0.03
"""Share of returns lost for no reason."""
THRESHOLD = 0.006
"""Echo strength (reflectivity, cosine of incidence, 30 m / range squared) of which 63 % are noticed."""

_GAMMA = (255 * np.linspace(0, 1, 4096) ** (1 / 2.2) + 0.5).astype(np.uint8)
"""Pixel value of linear light in 4096 steps."""


def expose(
    moment: Moment, plan: ScenePlan, camera: Camera, street_from_camera: Matrix, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "h w 3"], Int[np.ndarray, "h w"]]:
    """The picture, and the actor in each pixel (-1: none)."""
    directions = camera.rays @ street_from_camera[:3, :3].T.astype(np.float32)
    hits = moment.cast(street_from_camera[:3, 3], directions)
    rays = np.ascontiguousarray(directions.T)
    light = np.empty_like(rays)
    met, missed = np.flatnonzero(hits.face >= 0), np.flatnonzero(hits.face < 0)
    light[:, missed] = _sky(rays[:, missed], plan.daylight)
    light[:, met] = _surfaces(moment, plan, hits, met, street_from_camera[:3, 3], rays[:, met])
    shape = (camera.height, camera.width)
    pixels = _develop(light.reshape(3, *shape), plan.daylight.exposure, rng)
    return pixels.transpose(1, 2, 0), hits.owner.reshape(shape)


def _sky(rays: Planes, day: Daylight) -> Planes:
    """Colour gradient from the horizon to the zenith, with a glow around the sun and streaks of cloud."""
    x, y, z = rays
    up = np.sqrt(np.clip(z, 0, 1))
    glow = np.clip(_column(day.sun).T @ rays, 0, 1)[0]
    u, v = x / (np.abs(z) + 0.15), y / (np.abs(z) + 0.15)
    cloud = 0.22 * np.clip(np.sin(2 * u + 2 * np.sin(v)) * np.sin(v - u), 0, 1)
    color = _column(day.horizon_color) * (1 - up) + _column(day.sky_color) * up
    halo = 0.25 * glow**12 + 3 * glow**900
    return color * (1 - cloud) + cloud + _column(day.sun_color) * halo


def _surfaces(
    moment: Moment,
    plan: ScenePlan,
    hits: Hits,
    rows: Int[np.ndarray, "hits"],
    origin: Float[np.ndarray, "3"],
    rays: Planes,
) -> Planes:
    """Light that comes from the surfaces in `rows` of `hits`, met by `rays` from `origin`."""
    day = plan.daylight
    face, distance, normal = hits.face[rows], hits.distance[rows], hits.normal[rows].T
    place = _column(origin) + rays * distance
    light = albedo(moment.stage, plan, face, hits.weights[rows], place, distance)

    sunward = _column(day.sun)[:, 0] @ normal
    sunward = np.clip(sunward, 0, 1)
    lit = np.flatnonzero((sunward > 0) & (distance < SHADOW_REACH))
    dark = moment.blocked((place[:, lit] + 0.02 * normal[:, lit]).T, day.sun)
    sunward[lit[dark]] = 0
    open_sky = 0.55 + 0.45 * normal[2]
    light *= _column(1.5 * day.sun_color) * sunward + _column(day.sky_color) * open_sky

    material, horizon = moment.stage.material[face], _column(day.horizon_color)
    shiny = np.flatnonzero((material == GLASS) | (material == PAINT))
    slant = np.einsum("dn,dn->n", rays[:, shiny], normal[:, shiny])
    mirrored_up = np.clip(3 * (rays[2, shiny] - 2 * slant * normal[2, shiny]), 0, 1)
    fresnel = 0.04 + 0.5 * (1 + slant) ** 4
    light[:, shiny] += horizon * (fresnel * (0.25 + 0.75 * mirrored_up))
    veil = 1 - np.exp(distance / -day.haze)
    return light + (horizon - light) * veil


def _column(vector: Float[np.ndarray, "3"]) -> Float32[np.ndarray, "3 1"]:
    return vector.astype(np.float32)[:, None]


def _develop(
    light: Float32[np.ndarray, "3 h w"], exposure: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "3 h w"]:
    """Vignette, exposure, sensor noise, gamma."""
    _, height, width = light.shape
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    gain = exposure * rng.uniform(0.93, 1.07) * (1 - 0.12 * (x**2 + y**2))
    light = np.clip(light * gain.astype(np.float32), 0, 1)
    noise = READ_NOISE + SHOT_NOISE * np.sqrt(light)
    light += noise * rng.standard_normal(light.shape, dtype=np.float32)
    return _GAMMA[np.clip(light * (len(_GAMMA) - 1), 0, len(_GAMMA) - 1).astype(np.int32)]


_GRAIN = GRAIN.astype(np.float32)
_GROUND_COLORS = np.zeros((3, 8), dtype=np.float32)
_GROUND_COLORS[:, [ASPHALT, PATCH, WHITE, YELLOW, PAVEMENT, KERB, PLAZA]] = np.transpose(
    [
        (0.13, 0.13, 0.135),
        (0.085, 0.085, 0.09),
        (0.55, 0.55, 0.54),
        (0.55, 0.4, 0.06),
        (0.3, 0.29, 0.27),
        (0.38, 0.37, 0.35),
        (0.2, 0.2, 0.2),
    ]
)


def albedo(
    stage: Stage,
    plan: ScenePlan,
    face: Int[np.ndarray, "hits"],
    weights: Float32[np.ndarray, "hits 2"],
    place: Planes,
    distance: Float32[np.ndarray, "hits"],
) -> Planes:
    """Share of light that each hit surface sends back, by colour."""
    is_ground = stage.material[face] == GROUND
    ground, other = np.flatnonzero(is_ground), np.flatnonzero(~is_ground)
    result = np.empty((3, len(face)), dtype=np.float32)
    result[:, ground] = _ground(plan, place[0, ground], place[1, ground], distance[ground])
    result[:, other] = _things(stage, face[other], weights[other].T, distance[other])
    return result


def _things(
    stage: Stage, face: Int[np.ndarray, "hits"], weights: Float[np.ndarray, "2 hits"], distance: np.ndarray
) -> Planes:
    """Colour of the face, grain of its material; windows on walls."""
    corners = stage.local[face].transpose(1, 2, 0)  # corner axis hits
    local = corners[0] + weights[0] * (corners[1] - corners[0]) + weights[1] * (corners[2] - corners[0])
    x, y, z = local
    material, shade = stage.material[face], stage.shade[face]
    fine = _hash(9 * x + 50 * shade, 9 * y, 9 * z) - 0.5
    coarse = np.sin(2.1 * x + 1.7 * y + 2.9 * z + 6 * shade)
    # Texture smaller than a pixel would flicker: it fades with distance.
    fade = 1 / (1 + (distance / 18) ** 2)
    grain = 1 + _GRAIN[material] * (1.6 * fine * fade + 0.4 * coarse)
    result = stage.color[face].T * grain
    walls = np.flatnonzero((material == FACADE) & (np.abs(stage.normal[face, 2]) < 0.5))
    result[:, walls] = _windows(result[:, walls], local[:, walls], shade[walls])
    return result


def _windows(wall: Planes, local: Planes, shade: Float32[np.ndarray, "hits"]) -> Planes:
    """A grid of dark and light panes; every house has its own grid, some have none."""
    # Walls lie along the axes of their house: one coordinate is constant, the other runs along the wall.
    column = (local[0] + local[1]) / (1.6 + 2.2 * shade)
    row = local[2] / (2.7 + 0.9 * ((7 * shade) % 1))
    pane = np.abs(column % 1 - 0.5) < 0.18 + 0.2 * ((3 * shade) % 1)
    pane &= (np.abs(row % 1 - 0.55) < 0.26) & (shade < 0.9)
    tint = 0.03 + 0.22 * _hash(column, row, 40 * shade) ** 3
    bluish = np.array([[0.8], [0.95], [1.1]], dtype=np.float32)
    return np.where(pane, bluish * tint, wall)


def _ground(
    plan: ScenePlan,
    x: Float32[np.ndarray, "hits"],
    y: Float32[np.ndarray, "hits"],
    distance: Float32[np.ndarray, "hits"],
) -> Planes:
    """Road, pavement and terrain, with grain and stains."""
    colors = _GROUND_COLORS.copy()
    colors[:, 0] = plan.terrain
    code = plan.ground.look_up(x, y)
    fade = 1 / (1 + (distance / 9) ** 2)
    none = np.zeros_like(x)
    grain = (_hash(12 * x, 12 * y, none) - 0.5) * fade
    grain += 0.35 * (_hash(1.6 * x, 1.6 * y, none) - 0.5)
    stains = np.sin(0.9 * x + np.sin(0.6 * y)) * np.sin(0.6 * y - 0.3 * x)
    brightness = 1 + 0.35 * grain + 0.1 * stains
    slab, joint = 0.8, 0.04 + 0.004 * distance
    brightness[(code == PAVEMENT) & ((x % slab < joint) | (y % slab < joint))] *= 0.8
    return colors[:, code] * brightness


def _hash(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Float32[np.ndarray, "hits"]:
    """A number in [0, 1) for every cell of the unit lattice, the same in every picture."""
    key = np.zeros(len(x), dtype=np.uint32)
    for axis, prime in ((x, 73856093), (y, 19349663), (z, 83492791)):
        key += np.floor(axis).astype(np.int32).view(np.uint32) * np.uint32(prime)
    key = (key ^ (key >> np.uint32(13))) * np.uint32(1274126177)
    return (key >> np.uint32(16)).astype(np.float32) / 65536


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
    face = hits.face[rows]
    material = moment.stage.material[face]
    reflectivity = REFLECTIVITY[material] * (0.5 + moment.stage.color[face].mean(axis=1))  # higher for light paint
    reflectivity[material == REFLECTOR] = 2.0
    ground = np.flatnonzero(material == GROUND)
    place = street_from_lidar[:2, 3] + directions_street[rows[ground], :2] * hits.distance[rows[ground], None]
    reflectivity[ground] = GROUND_REFLECTIVITY[plan.ground.look_up(place[:, 0], place[:, 1])]
    echo = reflectivity * incidence * (30.0 / np.maximum(distance, 3.0)) ** 2
    noticed = (1 - DROPOUT) * (1 - np.exp(-echo / THRESHOLD))
    kept = rng.random(len(rows)) < noticed
    rows, distance, incidence, reflectivity = rows[kept], distance[kept], incidence[kept], reflectivity[kept]
    distance = distance + rng.normal(0.0, RANGE_NOISE, len(rows))
    intensity = 110 * reflectivity**1.3 * np.sqrt(incidence) * rng.uniform(0.8, 1.2, len(rows))
    points = np.column_stack([directions[rows] * distance[:, None], np.clip(intensity, 0, 255).round(), ring[rows]])
    return points.astype(np.float32), hits.owner[rows]
