"""A camera: light, haze and noise on what its rays met.

Arrays of vectors lie `[3, hits]` here: NumPy is several times faster along long rows.
"""

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from dualdistill.synthetic.mesh import GLASS, PAINT
from dualdistill.synthetic.plan import Daylight, ScenePlan
from dualdistill.synthetic.raycast import Hits, Moment
from dualdistill.synthetic.rig import Camera, Matrix
from dualdistill.synthetic.texture import Planes, albedo

SHADOW_REACH = 60.0
"""Metres from the camera up to which shadows are cast."""
READ_NOISE, SHOT_NOISE = 0.004, 0.012
"""Standard deviations of the sensor's noise, in the dark and growing with the root of the light."""

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
    u, v = x / (np.abs(z) + np.float32(0.15)), y / (np.abs(z) + np.float32(0.15))
    cloud = np.float32(0.22) * np.clip(np.sin(2 * u + 2 * np.sin(v)) * np.sin(v - u), 0, 1)
    color = _column(day.horizon_color) * (1 - up) + _column(day.sky_color) * up
    halo = np.float32(0.25) * glow**12 + np.float32(3) * glow**900
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
    dark = moment.blocked((place[:, lit] + np.float32(0.02) * normal[:, lit]).T, day.sun)
    sunward[lit[dark]] = 0
    open_sky = np.float32(0.55) + np.float32(0.45) * normal[2]
    light *= _column(1.5 * day.sun_color) * sunward + _column(day.sky_color) * open_sky

    material, horizon = moment.stage.material[face], _column(day.horizon_color)
    shiny = np.flatnonzero((material == GLASS) | (material == PAINT))
    slant = np.einsum("dn,dn->n", rays[:, shiny], normal[:, shiny])
    mirrored_up = np.clip(3 * (rays[2, shiny] - 2 * slant * normal[2, shiny]), 0, 1)
    fresnel = np.float32(0.04) + np.float32(0.5) * (1 + slant) ** 4
    light[:, shiny] += horizon * (fresnel * (np.float32(0.25) + np.float32(0.75) * mirrored_up))
    veil = 1 - np.exp(distance / np.float32(-day.haze))
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
    noise = np.float32(READ_NOISE) + np.float32(SHOT_NOISE) * np.sqrt(light)
    light += noise * rng.standard_normal(light.shape, dtype=np.float32)
    return _GAMMA[np.clip(light * (len(_GAMMA) - 1), 0, len(_GAMMA) - 1).astype(np.int32)]
