"""A camera: light, texture, haze and noise on what its rays met."""

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from dualdistill.data.synthetic.mesh import GRAIN, Material
from dualdistill.data.synthetic.plan import Daylight, ScenePlan
from dualdistill.data.synthetic.raycast import Hits, Moment
from dualdistill.data.synthetic.rig import Camera, Matrix
from dualdistill.data.synthetic.street import ASPHALT, KERB, PATCH, PAVEMENT, PLAZA, WHITE, YELLOW

SHADOW_REACH = 70.0
"""Metres from the camera up to which shadows are cast."""
READ_NOISE, SHOT_NOISE = 0.004, 0.012
"""Standard deviations of the sensor's noise, in the dark and growing with the root of the light."""

_GAMMA = (255 * np.linspace(0, 1, 4096) ** (1 / 2.2) + 0.5).astype(np.uint8)
"""Pixel value of linear light in 4096 steps."""
_GRAIN = GRAIN.astype(np.float32)
_GROUND_COLORS = np.zeros((8, 3), dtype=np.float32)
_GROUND_COLORS[[ASPHALT, PATCH, WHITE, YELLOW, PAVEMENT, KERB, PLAZA]] = [
    (0.13, 0.13, 0.135),
    (0.085, 0.085, 0.09),
    (0.55, 0.55, 0.54),
    (0.55, 0.4, 0.06),
    (0.3, 0.29, 0.27),
    (0.38, 0.37, 0.35),
    (0.2, 0.2, 0.2),
]


def expose(
    moment: Moment, plan: ScenePlan, camera: Camera, street_from_camera: Matrix, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "h w 3"], Int[np.ndarray, "h w"]]:
    """The picture, and the actor in each pixel (-1: none)."""
    directions = camera.rays @ street_from_camera[:3, :3].T.astype(np.float32)
    origin = street_from_camera[:3, 3].astype(np.float32)
    hits = moment.cast(street_from_camera[:3, 3], directions)
    light = np.empty_like(directions)
    rows, missed = np.flatnonzero(hits.hit), np.flatnonzero(~hits.hit)
    light[missed] = _sky(directions[missed], plan.daylight)
    light[rows] = _surfaces(moment, plan, hits, rows, origin, directions)
    shape = (camera.height, camera.width)
    return _develop(light.reshape(*shape, 3), plan.daylight.exposure, rng), hits.owner.reshape(shape)


def _sky(directions: Float[np.ndarray, "rays 3"], day: Daylight) -> Float32[np.ndarray, "rays 3"]:
    """From the horizon's colour to the zenith's, with a glow around the sun and streaks of cloud."""
    up = np.sqrt(np.clip(directions[:, 2:], 0, 1))
    color = day.horizon_color * (1 - up) + day.sky_color * up
    glow = np.clip(directions @ day.sun, 0, 1)[:, None]
    flat = directions[:, :2] / (np.abs(directions[:, 2:]) + 0.15)
    cloud = np.clip(
        np.sin(1.7 * flat[:, 0] + 2 * np.sin(flat[:, 1])) * np.sin(1.1 * flat[:, 1] - flat[:, 0]), 0, 1
    )
    color = color * (1 - 0.25 * cloud[:, None]) + 0.2 * cloud[:, None]
    return (color + day.sun_color * (0.25 * glow**12 + 3 * glow**900)).astype(np.float32)


def _surfaces(
    moment: Moment,
    plan: ScenePlan,
    hits: Hits,
    rows: Int[np.ndarray, "hits"],
    origin: Float32[np.ndarray, "3"],
    directions: Float32[np.ndarray, "rays 3"],
) -> Float32[np.ndarray, "hits 3"]:
    """Light that comes from the surfaces met by the rays in `rows`."""
    day, stage = plan.daylight, moment.stage
    face, distance, normal = hits.face[rows], hits.distance[rows], hits.normal[rows]
    ray = directions[rows]
    place = origin + ray * distance[:, None]
    material, albedo = stage.material[face], stage.color[face]

    is_ground = material == Material.GROUND
    ground, other = np.flatnonzero(is_ground), np.flatnonzero(~is_ground)
    albedo[ground] = _ground(plan, place[ground], distance[ground])
    corners, weights = stage.local[face[other]], hits.weights[rows[other]]
    local = corners[:, 0] + weights[:, :1] * (corners[:, 1] - corners[:, 0])
    local += weights[:, 1:] * (corners[:, 2] - corners[:, 0])
    shade = stage.shade[face[other]]
    fine = _hash(local * np.float32(9) + 50 * shade[:, None]) - np.float32(0.5)
    coarse = np.sin(local @ np.array([2.1, 1.7, 2.9], dtype=np.float32) + 6 * shade)
    # Texture smaller than a pixel would flicker: it fades with distance.
    fade = 1 / (1 + (distance[other] / 18) ** 2)
    albedo[other] *= (1 + _GRAIN[material[other]] * (1.6 * fine * fade + 0.4 * coarse))[:, None]
    walls = np.flatnonzero(material[other] == Material.FACADE)
    facade = other[walls]
    albedo[facade] = _windows(albedo[facade], local[walls], normal[facade], shade[walls])

    sunward = normal @ day.sun.astype(np.float32)
    lit = np.flatnonzero((sunward > 0) & (distance < SHADOW_REACH))
    dark = moment.blocked(place[lit] + np.float32(0.02) * normal[lit], day.sun)
    sunward[lit[dark]] = 0.0
    sky = 0.55 + 0.45 * normal[:, 2]
    horizon = day.horizon_color.astype(np.float32)
    light = albedo * (
        np.clip(sunward, 0, 1)[:, None] * day.sun_color.astype(np.float32) * 1.5
        + sky[:, None] * day.sky_color.astype(np.float32)
    )
    shiny = (material == Material.GLASS) | (material == Material.PAINT)
    mirrored = ray[shiny] - 2 * np.einsum("nd,nd->n", ray[shiny], normal[shiny])[:, None] * normal[shiny]
    fresnel = 0.04 + 0.5 * (1 + np.einsum("nd,nd->n", ray[shiny], normal[shiny])) ** 4
    light[shiny] += (fresnel * (0.25 + 0.75 * np.clip(mirrored[:, 2] * 3, 0, 1)))[:, None] * horizon
    veil = (1 - np.exp(distance / np.float32(-day.haze)))[:, None]
    return light + (horizon - light) * veil


def _ground(
    plan: ScenePlan, place: Float[np.ndarray, "hits 3"], distance: Float[np.ndarray, "hits"]
) -> Float32[np.ndarray, "hits 3"]:
    """Colour of road, pavement and terrain, with grain that belongs to the place."""
    colors = _GROUND_COLORS.copy()
    colors[0] = plan.terrain
    code = plan.ground.look_up(place[:, 0], place[:, 1])
    fade = 1 / (1 + (distance / 9.0) ** 2)
    # Slightly inside the cells above the plane: a height of minus nothing must not change the cell.
    flat = place * np.array([1, 1, 0], dtype=np.float32) + np.array([0, 0, 0.01], dtype=np.float32)
    grain = (_hash(flat * np.float32(12)) - 0.5) * fade + 0.35 * (_hash(flat * np.float32(1.6)) - 0.5)
    stains = np.sin(0.9 * place[:, 0] + np.sin(0.6 * place[:, 1])) * np.sin(
        0.7 * place[:, 1] - 0.3 * place[:, 0]
    )
    result = colors[code] * (1 + 0.35 * grain + 0.1 * stains)[:, None]
    slabs = (code == PAVEMENT) & ((place[:, :2] % 0.8 < 0.04 + 0.004 * distance[:, None]).any(axis=1))
    result[slabs] *= 0.8
    return result.astype(np.float32)


def _windows(
    albedo: Float[np.ndarray, "hits 3"],
    local: Float[np.ndarray, "hits 3"],
    normal: Float[np.ndarray, "hits 3"],
    shade: Float[np.ndarray, "hits"],
) -> Float32[np.ndarray, "hits 3"]:
    """A grid of dark and light panes on upright walls; every house has its own grid."""
    # Walls of a house lie along its own axes: the coordinate that varies along a wall differs from place to place.
    across = local[:, 0] + local[:, 1]
    pitch, storey = 1.6 + 2.2 * shade, 2.7 + 0.9 * ((7 * shade) % 1.0)
    column, row = across / pitch, local[:, 2] / storey
    pane = (
        (np.abs(normal[:, 2]) < 0.5)
        & (np.abs(column % 1.0 - 0.5) < 0.18 + 0.2 * ((3 * shade) % 1.0))
        & (np.abs(row % 1.0 - 0.55) < 0.26)
        & (shade < 0.9)
    )
    tint = 0.03 + 0.22 * _hash(np.column_stack([column, row, 40 * shade])) ** 3
    return np.where(pane[:, None], tint[:, None] * np.array([0.8, 0.95, 1.1]), albedo).astype(np.float32)


def _hash(places: Float[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n"]:
    """A number in [0, 1) for every cell of the unit lattice, the same wherever it is asked for."""
    x, y, z = np.floor(places).astype(np.int32).view(np.uint32).T
    key = x * np.uint32(73856093) + y * np.uint32(19349663) + z * np.uint32(83492791)
    key = (key ^ (key >> np.uint32(13))) * np.uint32(1274126177)
    return (key >> np.uint32(16)).astype(np.float32) / np.float32(65536)


def _develop(
    light: Float[np.ndarray, "h w 3"], exposure: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Vignette, exposure, sensor noise, gamma."""
    height, width, _ = light.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    gain = np.float32(exposure * rng.uniform(0.93, 1.07)) * (1 - 0.12 * (x**2 + y**2)).astype(np.float32)
    light = np.clip(light * gain[..., None], 0, 1)
    light += rng.standard_normal(light.shape, dtype=np.float32) * (READ_NOISE + SHOT_NOISE * np.sqrt(light))
    return _GAMMA[np.clip(light * (len(_GAMMA) - 1), 0, len(_GAMMA) - 1).astype(np.int32)]
