"""Metrics computed by the official devkit, where it is installed (it requires numpy < 2)."""

from pathlib import Path
from typing import Any

from dualdistill.errors import UserError
from dualdistill.files import write_json


def official_metrics(path: Path, root: Path, version: str, split: str, out_dir: Path) -> dict[str, Any]:
    """Evaluate a result file with nuscenes-devkit: writes its files and `metrics.json` to `out_dir`. Raises UserError
    if the devkit is not installed, or rejects the file."""
    try:
        from nuscenes import NuScenes  # type: ignore[import-not-found]
        from nuscenes.eval.common.config import config_factory  # type: ignore[import-not-found]
        from nuscenes.eval.detection.evaluate import DetectionEval  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError(
            f"the official evaluation needs nuscenes-devkit 1.2.0, which cannot be imported here ({error}):"
            f" install it in an environment with numpy < 2, or evaluate without it (the numbers are the same)"
        ) from error
    dataset = NuScenes(version=version, dataroot=str(root), verbose=False)
    config = config_factory("detection_cvpr_2019")
    try:
        evaluation = DetectionEval(
            dataset, config=config, result_path=str(path), eval_set=split, output_dir=str(out_dir), verbose=False
        )
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(f"nuscenes-devkit rejects {path}: {error}") from error
    summary = evaluation.main(render_curves=False)
    write_json(out_dir / "metrics.json", summary)
    return summary
