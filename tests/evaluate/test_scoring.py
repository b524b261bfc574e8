"""From a result file and a data root to metrics.json."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import UserError
from dualdistill.evaluate.ground_truth import ground_truth_of_split, is_evaluated
from dualdistill.evaluate.metrics import detection_metrics
from dualdistill.evaluate.records import Detections
from dualdistill.evaluate.scoring import evaluate_submission, official_metrics
from dualdistill.evaluate.submission import read_submission, write_submission
from tests.evaluate.evaluation_worlds import noisy_detections, random_boxes, world_of


@pytest.fixture(scope="module")
def index(nuscenes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> NuscenesIndex:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUALDISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return NuscenesIndex.open(nuscenes_root)


@pytest.fixture(scope="module")
def fixture(nuscenes_root: Path) -> Path:
    """A recorded result file of the real frames, with the devkit's verdict on it."""
    folder = nuscenes_root / "eval_fixture"
    if not folder.is_dir():
        pytest.skip("this nuScenes root comes without a recorded evaluation")
    return folder


def assert_same_numbers(ours: dict, recorded: dict) -> None:
    assert ours.keys() == recorded.keys()
    for key, expected in recorded.items():
        if isinstance(expected, dict):
            assert_same_numbers(ours[key], expected)
        else:
            expected = np.nan if expected is None else expected
            assert ours[key] == pytest.approx(expected, abs=1e-9, nan_ok=True), key


@pytest.mark.nuscenes
def test_real_frames_have_the_metrics_of_the_devkit(index: NuscenesIndex, fixture: Path, tmp_path: Path) -> None:
    summary = evaluate_submission(fixture / "results_nusc.json", index, "val", tmp_path)
    recorded = json.loads((fixture / "metrics_devkit.json").read_text())
    written = json.loads((tmp_path / "metrics.json").read_text())
    np.testing.assert_equal(written, summary)
    assert_same_numbers({key: written[key] for key in recorded}, recorded)
    assert written["meta"]["use_camera"] is True


@pytest.mark.nuscenes
def test_as_many_real_boxes_are_evaluated_as_the_devkit_evaluates(index: NuscenesIndex, fixture: Path) -> None:
    ground_truth = ground_truth_of_split(index, "val")
    assert is_evaluated(ground_truth.boxes, ground_truth).sum() == 605  # said by nuscenes-devkit 1.2.0


@pytest.mark.nuscenes
def test_the_annotations_of_real_frames_are_a_perfect_submission(index: NuscenesIndex, tmp_path: Path) -> None:
    ground_truth = ground_truth_of_split(index, "val")
    boxes = ground_truth.boxes.select(is_evaluated(ground_truth.boxes, ground_truth))
    known = replace(boxes, velocity=np.nan_to_num(boxes.velocity), num_points=np.full(len(boxes), -1))
    answers = Detections.of(known, np.linspace(0.1, 1, len(boxes)))
    write_submission(tmp_path / "oracle.json", answers, ground_truth.sample_tokens)
    summary = evaluate_submission(tmp_path / "oracle.json", index, "val", tmp_path)
    assert summary["mean_ap"] == pytest.approx(1)
    assert max(summary["tp_errors"].values()) < 1e-9


@pytest.mark.nuscenes
def test_a_file_without_one_of_the_samples_is_refused(index: NuscenesIndex, fixture: Path, tmp_path: Path) -> None:
    content = json.loads((fixture / "results_nusc.json").read_text())
    token, _ = content["results"].popitem()
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=token):
        evaluate_submission(tmp_path / "bad.json", index, "val", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_says_the_same_as_the_detections_it_was_made_of(tmp_path: Path) -> None:
    world = world_of(random_boxes(seed=0), samples=6)
    detections = noisy_detections(world.boxes, seed=1)
    write_submission(tmp_path / "results.json", detections, world.sample_tokens)
    read = read_submission(tmp_path / "results.json").for_samples(world.sample_tokens, others="refuse")
    ours, metrics = detection_metrics(world, read), detection_metrics(world, detections)
    assert (ours.mean_ap, ours.nd_score) == (metrics.mean_ap, metrics.nd_score)


@pytest.mark.skipif(importlib.util.find_spec("nuscenes") is not None, reason="the devkit is installed")
def test_without_the_devkit_the_official_evaluation_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nuscenes-devkit"):
        official_metrics(tmp_path / "results.json", tmp_path, "v1.0-mini", "mini_val", tmp_path)
