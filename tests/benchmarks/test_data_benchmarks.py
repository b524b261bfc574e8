"""Evaluation, indexing and images: the reference agrees with the fast form, and the benchmarks run at a tiny size."""

import json
import sys

import numpy as np
import pytest

from benchmarks.evaluation import evaluation_rows, make_world
from benchmarks.images import NETWORK, STORED, image_rows, write_images
from benchmarks.indexing import indexing_rows
from benchmarks.references.devkit import VARIABLE, devkit_python, run_devkit
from benchmarks.references.evaluation import as_objects, loop_metrics
from benchmarks.references.images import pil_pixels
from benchmarks.tables import RECORDS_PER_KEY_FRAME, VERSION, write_tables
from dualdistill.data.augment import ImageView
from dualdistill.data.images import load_image
from dualdistill.data.index import NuscenesIndex
from dualdistill.evaluate.metrics import average_matches, match_all


@pytest.mark.parametrize(("samples", "objects", "detections"), [(7, 30, 60), (1, 1, 1), (3, 0, 5), (3, 5, 0)])
def test_the_loops_and_the_arrays_score_alike(samples, objects, detections):
    world = make_world(samples, objects=objects, detections=detections)
    metrics = average_matches(match_all(world.truth.boxes, world.detections))
    loops = loop_metrics(as_objects(world.truth.boxes), as_objects(world.detections, world.detections.score))
    np.testing.assert_allclose(metrics.ap, loops["ap"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(metrics.error, loops["error"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("devkit", [False, True])
def test_the_evaluation_benchmark_compares_equal_scores(devkit, monkeypatch, tmp_path):
    if devkit and devkit_python() is None:
        pytest.skip(f"set {VARIABLE} to a Python that has nuscenes-devkit 1.2.0")
    if not devkit:
        monkeypatch.delenv(VARIABLE, raising=False)
        monkeypatch.chdir(tmp_path)
    rows = evaluation_rows(make_world(5, detections=40), repeats=1)
    (scored,) = (row for row in rows if row.name == "on arrays")
    assert scored.difference < 1e-10
    assert any("devkit 1.2.0" in row.name and "absent" not in row.name for row in rows) == devkit


def test_the_written_tables_make_an_index_of_the_size_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("DUALDISTILL_CACHE", str(tmp_path / "cache"))
    write_tables(tmp_path / "root", scenes=2, key_frames=5, boxes=3, track=4)
    index = NuscenesIndex.open(tmp_path / "root", VERSION)
    assert len(index) == 10
    of_radar = sum(count for name, count in RECORDS_PER_KEY_FRAME.items() if name.startswith("RADAR"))
    assert len(index.data_channel) == 10 * (sum(RECORDS_PER_KEY_FRAME.values()) - of_radar)
    assert index.num_annotations == 2 * 4 * 4  # each of four instances is seen in four key frames
    assert (index.sample_lidar >= 0).all()
    assert (index.sample_cameras >= 0).all()
    measured = run_devkit(sys.executable, "devkit_indexing.py", "records", str(tmp_path / "root"), VERSION)
    assert measured["seconds"] > 0
    first = json.loads((tmp_path / "root" / VERSION / "sample_data.json").read_text())[0]
    assert first["next"] in {
        record["token"] for record in json.loads((tmp_path / "root" / VERSION / "sample_data.json").read_text())
    }


def test_the_indexing_benchmark_measures_building_opening_and_a_worker():
    rows = indexing_rows(scenes=1, key_frames=4)
    assert len({row.setting for row in rows}) == 3
    assert all(row.milliseconds > 0 for row in rows)
    assert rows[1].peak_mib is not None


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("resize", "crop"), [(0.44, (0, 140)), (0.55, (90, 239)), (0.39, (0, 95))])
def test_images_decoded_smaller_show_what_the_peers_path_shows(tmp_path, resize, crop, flip):
    (path,) = write_images(tmp_path, 1)
    view = ImageView(resize=resize, crop=crop, size=NETWORK, flip=flip)
    peers = np.asarray(pil_pixels(path, view)).transpose(2, 0, 1).astype(float)
    ours = load_image(path, view, STORED, draft=True).numpy().astype(float)
    assert np.abs(ours - peers).mean() < 1.5
    shifted = [np.abs(np.roll(ours, by, axis=2) - peers)[:, :, 8:600].mean() for by in (-1, 0, 1)]
    assert int(np.argmin(shifted)) == 1  # not a pixel aside


def test_the_image_benchmark_measures_test_time_and_training(tmp_path):
    rows = image_rows(write_images(tmp_path, 1), "synthetic", repeats=1)
    assert [row.name for row in rows] == 2 * ["PIL at full size (peers)", "decoded at full size", "decoded smaller"]
    assert all(row.difference < 0.2 for row in rows if row.difference is not None)
