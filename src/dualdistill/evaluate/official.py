"""The official devkit's own verdict, where it is installed (it needs numpy < 2, so seldom beside this package)."""

from pathlib import Path
from typing import Any

from dualdistill.errors import UserError


def official_metrics(path: Path, root: Path, version: str, split: str, out_dir: Path) -> dict[str, Any]:
    """Evaluate a result file with nuscenes-devkit; writes its `metrics_summary.json` and `metrics_details.json`.

    Raises:
        UserError: if the devkit is not installed, or refuses the file.
    """
    try:
        from nuscenes import NuScenes
        from nuscenes.eval.common.config import config_factory
        from nuscenes.eval.detection.evaluate import DetectionEval
    except ImportError as error:
        raise UserError(
            f"the official evaluation needs nuscenes-devkit 1.2.0, which cannot be imported here ({error}): install it "
            f"in an environment with numpy < 2, or evaluate without it (the numbers are the same)"
        ) from error
    dataset = NuScenes(version=version, dataroot=str(root), verbose=False)
    config = config_factory("detection_cvpr_2019")
    try:
        evaluation = DetectionEval(
            dataset,
            config=config,
            result_path=str(path),
            eval_set=split,
            output_dir=str(out_dir),
            verbose=False,
        )
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(f"nuscenes-devkit refuses {path}: {error}") from error
    return evaluation.main(render_curves=False)
