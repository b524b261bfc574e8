"""DualDistill: LiDAR-to-camera distillation for bird's-eye-view 3D object detection.

Detectors and trainings:

- `load`: a trained detector of the zoo, a run, a file or the Hugging Face hub; `load(...).predict(images, rig)`
- `predict`; `fit` and `score`: train a recipe, evaluate a run
- `Rig`, `Boxes`: cameras in, detections out

Distillation in a training loop of your own, for detectors of any classes:

- `DualDistill`, `DistillBev`, `TigBev`, `X3kd`, `LabelDistill`
- `Shapes`, `Maps`: what a detector's maps look like, and the maps of a batch

Names are imported when they are first used: `import dualdistill` alone loads no PyTorch. (`dualdistill.train` and
`dualdistill.evaluate` are packages, so the functions have other names.)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualdistill.api.detectors import fit, load, predict, score
    from dualdistill.api.losses import DistillBev, Distiller, DualDistill, LabelDistill, Maps, TigBev, X3kd
    from dualdistill.deploy.calibration import Rig
    from dualdistill.distill.shapes import BevShapes as Shapes
    from dualdistill.errors import UserError
    from dualdistill.structures import Boxes

__version__ = "0.1.0"

__all__ = [
    "Boxes",
    "DistillBev",
    "Distiller",
    "DualDistill",
    "LabelDistill",
    "Maps",
    "Rig",
    "Shapes",
    "TigBev",
    "UserError",
    "X3kd",
    "fit",
    "load",
    "predict",
    "score",
]

_HOMES = {
    "api.detectors": ("fit", "load", "predict", "score"),
    "api.losses": ("DistillBev", "Distiller", "DualDistill", "LabelDistill", "Maps", "Shapes", "TigBev", "X3kd"),
    "deploy.calibration": ("Rig",),
    "errors": ("UserError",),
    "structures": ("Boxes",),
}
"""Module of each name of `__all__`."""


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"dualdistill.{home}"), name)
    raise AttributeError(f"module 'dualdistill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
