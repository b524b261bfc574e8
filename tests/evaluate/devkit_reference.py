"""Runs under the official devkit's own Python: load a root, evaluate a result file, write the verdict.

Usage: python devkit_reference.py ROOT VERSION SPLIT RESULTS OUT_DIR
"""

import json
import sys
from pathlib import Path

from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval


def main(root: str, version: str, split: str, results: str, out: str) -> None:
    dataset = NuScenes(version=version, dataroot=root, verbose=False)
    for sample in dataset.sample:  # every record that a user of the devkit would ask for
        for token in sample["data"].values():
            path, boxes, _ = dataset.get_sample_data(token)
            assert Path(path).is_file()
            assert all(dataset.box_velocity(box.token).shape == (3,) for box in boxes)
    evaluation = DetectionEval(
        dataset,
        config=config_factory("detection_cvpr_2019"),
        result_path=results,
        eval_set=split,
        output_dir=out,
        verbose=False,
    )
    metrics, _ = evaluation.evaluate()
    (Path(out) / "verdict.json").write_text(json.dumps(metrics.serialize()))


if __name__ == "__main__":
    main(*sys.argv[1:])
