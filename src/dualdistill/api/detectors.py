"""Load, predict, train and evaluate in one call each, as on the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace
from rich.console import Console

from dualdistill.api.arguments import public
from dualdistill.commands.evaluate import evaluate_anything
from dualdistill.commands.options.training import Evaluate, Train
from dualdistill.commands.train import start_training
from dualdistill.deploy.calibration import Images, Rig
from dualdistill.errors import UserError
from dualdistill.settings import Share, Workers
from dualdistill.structures import Boxes
from dualdistill.train.loaded_detector import LoadedDetector, weights_of
from dualdistill.train.run_folder import Seed


@public
def load(weights: str | Path, *, checkpoint: str = "last", device: str | torch.device | None = None) -> LoadedDetector:
    """Load a trained detector in evaluation mode; its `predict` detects objects in images.

    Args:
        weights: "zoo:NAME" (`dualdistill zoo` lists them), a run folder, a weights file, or "hf:owner/name" of the
            Hugging Face hub (extra `hub`).
        checkpoint: Checkpoint of a run: "last", "best" or "step_000400".
        device: Default: the GPU, if there is one.

    Raises:
        UserError: if there is no such detector, or its weights are damaged.
    """
    loaded = LoadedDetector.load(weights_of(Path(weights), checkpoint))
    try:
        loaded.detector.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch was built without CUDA
        raise UserError(f"device={device!r} cannot be used: {str(error).splitlines()[0]}") from None
    return loaded


@public
def predict(weights: str | Path, images: Images, rig: Rig, *, min_score: Share = 0.0) -> Boxes:
    """Detect the objects around the car in the images of one moment: `load(weights).predict(images, rig)`.

    Raises:
        UserError: as in `load` and `LoadedDetector.predict`.
    """
    return load(weights).predict(images, rig, min_score=min_score)


@public
def score(
    what: str | Path,
    *,
    data: str | Path | None = None,
    version: str | None = None,
    split: str | None = None,
    out: str | Path | None = None,
    checkpoint: str | None = None,
    workers: Workers | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score a detector or a result file with the nuScenes detection metrics, as `dualdistill evaluate` does.

    Args:
        what: As in `load`, or a results_nusc.json.
        data: A nuScenes root; default: the one the run was trained on.
        split: Default: val, or mini_val for v1.0-mini.
        out: Folder for metrics.json and results_nusc.json.
        checkpoint: Checkpoint of a run; default: "last".
        quiet: Print nothing.

    Returns:
        The metrics under the names of the devkit's metrics_summary.json ("mean_ap", "nd_score", "label_aps", ...).

    Raises:
        UserError: for input that cannot be evaluated.
    """
    options = Evaluate(Path(what), _path(data), version, split, _path(out), checkpoint, workers)
    return evaluate_anything(Console(quiet=quiet), options)


@public
def fit(
    recipe: str,
    *,
    data: str | Path,
    out: str | Path = "runs",
    settings: Mapping[str, object] | None = None,
    seed: Seed = 0,
    teacher: str | Path | None = None,
    label_encoder: str | Path | None = None,
    version: str | None = None,
    split: str | None = None,
    workers: Workers | None = None,
    quiet: bool = False,
) -> Path:
    """Train a teacher, a label encoder or a student in this process, as `dualdistill train` does.

    Args:
        recipe: A name from `dualdistill recipes list`, or "file.py:function".
        data: A nuScenes root.
        out: Folder of the run folders.
        settings: Changes of the recipe, such as {"training.steps": 200}.
        teacher: As in `load`; default: the newest finished run of the recipe's teacher in `out`.
        label_encoder: The same for LabelDistill.
        quiet: Print nothing.

    Returns:
        The run folder.

    Raises:
        UserError: if something is missing, before training starts; and if the training diverges.
    """
    overrides = [f"{name}={value}" for name, value in (settings or {}).items()]
    options = Train(recipe, Path(data), Path(out), overrides, seed, _path(teacher), _path(label_encoder))
    return start_training(Console(quiet=quiet), replace(options, version=version, split=split, workers=workers))


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
