"""Runs under the Python of nuscenes-devkit (no import of this package): time and scores of the devkit, as JSON.

Usage: python devkit_evaluation.py ARRAYS.npz RESULTS.json OUT.json
`ARRAYS.npz` holds the annotations, `RESULTS.json` the detections: both fit to evaluate, nothing is filtered.
"""

import json
import resource
import sys
import time

import numpy as np
from nuscenes.eval.common.config import config_factory  # type: ignore[import-not-found]
from nuscenes.eval.common.data_classes import EvalBoxes  # type: ignore[import-not-found]
from nuscenes.eval.common.loaders import load_prediction  # type: ignore[import-not-found]
from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp  # type: ignore[import-not-found]
from nuscenes.eval.detection.constants import TP_METRICS  # type: ignore[import-not-found]
from nuscenes.eval.detection.data_classes import DetectionBox  # type: ignore[import-not-found]


def main(arrays_path: str, results_path: str, out_path: str) -> None:
    began = time.perf_counter()
    detections, _ = load_prediction(results_path, 500, DetectionBox)
    loading = time.perf_counter() - began
    objects = EvalBoxes()
    with np.load(arrays_path, allow_pickle=False) as arrays:
        columns = {name: arrays[name].tolist() for name in arrays.files}
    for token in columns.pop("tokens"):
        objects.add_boxes(token, [])
    for row in zip(*columns.values(), strict=True):
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in zip(columns, row, strict=True)}
        objects.add_boxes(fields["sample_token"], [DetectionBox(**fields)])

    config = config_factory("detection_cvpr_2019")
    began = time.perf_counter()
    ap, error = {}, {}
    for name in config.class_names:
        curves = {
            limit: accumulate(objects, detections, name, config.dist_fcn_callable, limit) for limit in config.dist_ths
        }
        ap[name] = [calc_ap(curves[limit], config.min_recall, config.min_precision) for limit in config.dist_ths]
        error[name] = [calc_tp(curves[config.dist_th_tp], config.min_recall, metric) for metric in TP_METRICS]
    scoring = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with open(out_path, "w") as file:
        json.dump({"loading": loading, "scoring": scoring, "peak_mib": peak, "ap": ap, "error": error}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
