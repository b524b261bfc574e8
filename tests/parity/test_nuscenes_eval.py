"""Metrics against nuscenes-devkit 1.2.0: the golden numbers were computed by running it on CPU (float64)."""

import json
from pathlib import Path

import numpy as np
import pytest

from dualdistill.evaluate.ground_truth import is_evaluated
from dualdistill.evaluate.metrics import (
    DetectionMetrics,
    average_matches,
    detection_metrics,
    match_all,
    metrics_summary,
)
from dualdistill.evaluate.protocol import ATTRIBUTES, DISTANCES, TP_ERRORS
from dualdistill.evaluate.records import Detections, GlobalBoxes, GroundTruth
from dualdistill.structures import CLASSES
from tests.evaluate import evaluation_worlds

GOLDEN = Path(__file__).parent / "golden" / "nuscenes_eval"
AS_GIVEN = ("normal", "ties", "empty_classes", "missing", "no_predictions", "all_missing_attr", "perfect")
LENGTH_WIDTH_HEIGHT = [1, 0, 2]  # the files say width, length, height

Arrays = dict[str, np.ndarray]


def load(case: str) -> tuple[Arrays, dict]:
    with np.load(GOLDEN / f"{case}.npz", allow_pickle=False) as arrays:
        return dict(arrays), json.loads((GOLDEN / f"{case}.json").read_text())


def boxes_of(arrays: Arrays, prefix: str, golden: dict) -> GlobalBoxes:
    names = golden["hyperparameters"]["classes"]
    assert tuple(golden["hyperparameters"]["attributes"]) == ATTRIBUTES
    return GlobalBoxes(
        sample=arrays[f"{prefix}.sample"].astype(np.int64),
        label=np.array([CLASSES.index(name) for name in names])[arrays[f"{prefix}.class"]],
        center=arrays[f"{prefix}.translation"],
        size=arrays[f"{prefix}.size"][:, LENGTH_WIDTH_HEIGHT],
        rotation=arrays[f"{prefix}.rotation"],
        velocity=arrays[f"{prefix}.velocity"],
        attribute=arrays[f"{prefix}.attribute"].astype(np.int64),
        num_points=arrays[f"{prefix}.num_pts"].astype(np.int64),
    )


def detections_of(arrays: Arrays, golden: dict) -> Detections:
    return Detections.of(boxes_of(arrays, "pred", golden), arrays["pred.score"])


def ground_truth_of(arrays: Arrays, golden: dict) -> GroundTruth:
    """Where the ego vehicle was follows from any box, since each says how far from it it is."""
    boxes = boxes_of(arrays, "gt", golden)
    count = int(boxes.sample.max()) + 1
    position = np.zeros((count, 3))
    for prefix in ("gt", "pred"):
        position[arrays[f"{prefix}.sample"]] = arrays[f"{prefix}.translation"] - arrays[f"{prefix}.ego_translation"]
    racks = evaluation_worlds.boxes_of(
        len(arrays["rack.sample"]),
        sample=arrays["rack.sample"].astype(np.int64),
        center=arrays["rack.translation"],
        size=arrays["rack.size"][:, LENGTH_WIDTH_HEIGHT],
        rotation=arrays["rack.rotation"],
    )
    return GroundTruth(
        sample_tokens=tuple(map(str, range(count))),
        ego_position=position,
        scene=np.zeros(count, np.int64),
        boxes=boxes,
        racks=racks,
    )


def assert_same_numbers(ours: dict, golden: dict) -> None:
    assert ours.keys() == golden.keys()
    for key, expected in golden.items():
        if isinstance(expected, dict):
            assert_same_numbers(ours[key], expected)
        else:  # JSON has no NaN: the golden files say null
            expected = np.nan if expected is None else expected
            assert ours[key] == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True), key


def assert_same_summary(metrics: DetectionMetrics, golden: dict) -> None:
    ours = metrics_summary(metrics)
    assert_same_numbers({key: ours[key] for key in golden["scalars"]}, golden["scalars"])


@pytest.mark.parametrize("case", AS_GIVEN)
def test_metrics_of_given_boxes_are_those_of_the_devkit(case: str) -> None:
    arrays, golden = load(case)
    matches = match_all(boxes_of(arrays, "gt", golden), detections_of(arrays, golden))
    assert_same_summary(average_matches(matches), golden)


@pytest.mark.parametrize("case", ["normal", "ties"])
def test_curves_are_those_of_the_devkit(case: str) -> None:
    arrays, golden = load(case)
    curves = average_matches(match_all(boxes_of(arrays, "gt", golden), detections_of(arrays, golden))).curves
    compared = 0
    for key, expected in arrays.items():
        if not key.startswith("curve.") or key.endswith(".recall"):
            continue
        _, name, whole, tenths, field = key.split(".")
        at = CLASSES.index(name), DISTANCES.index(float(f"{whole}.{tenths}"))
        ours = curves.error[at][:, TP_ERRORS.index(field)] if field in TP_ERRORS else getattr(curves, field)[at]
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9, err_msg=key)
        compared += 1
    assert compared == 28


def test_the_filters_keep_the_boxes_the_devkit_keeps() -> None:
    arrays, golden = load("filtered")
    ground_truth, detections = ground_truth_of(arrays, golden), detections_of(arrays, golden)
    for prefix, boxes in (("gt", ground_truth.boxes), ("pred", detections)):
        kept = is_evaluated(boxes, ground_truth)
        np.testing.assert_array_equal(boxes.sample[kept], arrays[f"filtered.{prefix}.sample"])
        np.testing.assert_array_equal(boxes.center[kept], arrays[f"filtered.{prefix}.translation"])


def test_metrics_after_the_filters_are_those_of_the_devkit() -> None:
    arrays, golden = load("filtered")
    assert_same_summary(detection_metrics(ground_truth_of(arrays, golden), detections_of(arrays, golden)), golden)
