"""Colours of objects, as linear albedo."""

import numpy as np

from dualdistill.synthetic.mesh import Rgb

PAINTS: tuple[Rgb, ...] = (
    *((0.72, 0.72, 0.72), (0.42, 0.43, 0.45), (0.06, 0.06, 0.07), (0.18, 0.19, 0.21), (0.55, 0.04, 0.04)),
    *((0.05, 0.12, 0.42), (0.16, 0.3, 0.5), (0.08, 0.2, 0.12), (0.5, 0.42, 0.3), (0.75, 0.55, 0.08)),
)
"""Vehicle colours."""
CLOTHES: tuple[Rgb, ...] = (
    *((0.05, 0.05, 0.07), (0.08, 0.1, 0.25), (0.5, 0.5, 0.48), (0.4, 0.05, 0.06)),
    *((0.1, 0.3, 0.15), (0.6, 0.45, 0.1), (0.2, 0.14, 0.1), (0.15, 0.3, 0.5)),
)
SKINS: tuple[Rgb, ...] = ((0.55, 0.36, 0.26), (0.35, 0.2, 0.13), (0.14, 0.08, 0.05))
SAFETY: tuple[Rgb, ...] = ((0.85, 0.25, 0.03), (0.6, 0.75, 0.05))
"""Orange and yellow of road works."""

DARK: Rgb = (0.03, 0.03, 0.035)
WINDOW: Rgb = (0.04, 0.055, 0.07)
WHITE: Rgb = (0.8, 0.8, 0.8)
LAMP: Rgb = (0.9, 0.9, 0.8)
TAIL: Rgb = (0.6, 0.02, 0.02)
ORANGE: Rgb = (0.85, 0.22, 0.02)


def pick(rng: np.random.Generator, colors: tuple[Rgb, ...]) -> Rgb:
    """One of the colours, slightly varied."""
    red, green, blue = np.clip(np.asarray(colors[rng.integers(len(colors))]) * rng.uniform(0.8, 1.2, 3), 0, 1)
    return float(red), float(green), float(blue)
