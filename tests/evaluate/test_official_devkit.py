"""The official devkit has the last word: it loads what we write, and says what we say."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dualdistill.data.index import NuscenesIndex
from dualdistill.evaluate.ground_truth import ground_truth_of_split
from dualdistill.evaluate.scoring import evaluate_submission
from dualdistill.evaluate.submission import write_submission
from tests.evaluate.evaluation_worlds import noisy_detections

JUDGE = Path(__file__).with_name("devkit_reference.py")


@pytest.fixture(scope="module")
def devkit() -> str:
    """The interpreter of an environment with nuscenes-devkit (`make test` makes one)."""
    python = os.environ.get("DUALDISTILL_DEVKIT_PYTHON")
    if not python:
        pytest.skip("set DUALDISTILL_DEVKIT_PYTHON to a Python that has nuscenes-devkit 1.2.0")
    return python


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_devkit_loads_the_synthetic_world_and_its_verdict_is_ours(world, devkit, tmp_path, split):
    index = NuscenesIndex.open(world)
    truth = ground_truth_of_split(index, split)
    results = tmp_path / "results_nusc.json"
    known = truth.boxes.select(np.isfinite(truth.boxes.velocity).all(axis=1))
    write_submission(results, noisy_detections(known, seed=3), truth.sample_tokens, sources=["lidar"])
    ours = evaluate_submission(results, index, split, tmp_path)
    command = [devkit, str(JUDGE), str(world), index.version, split, str(results), str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    theirs = json.loads((tmp_path / "verdict.json").read_text())
    assert ours["mean_ap"] > 0.02
    for key in ("mean_ap", "nd_score", "mean_dist_aps", "tp_errors", "tp_scores"):
        assert ours[key] == pytest.approx(theirs[key], abs=1e-9, nan_ok=True)
    for name, values in theirs["label_aps"].items():
        assert ours["label_aps"][name] == pytest.approx({str(k): v for k, v in values.items()}, abs=1e-9)
    for name, values in theirs["label_tp_errors"].items():
        assert ours["label_tp_errors"][name] == pytest.approx(values, abs=1e-9, nan_ok=True)
