"""Recordings for the viewer of rerun."""

import sys

import pytest
import torch

from dualdistill.data.config import DataConfig
from dualdistill.errors import UserError
from dualdistill.train.data import random_batch
from dualdistill.visualize.palette import BoxLayer
from dualdistill.visualize.recording import Recording
from tests.visualize.scenes import boxes


def test_without_rerun_the_message_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(UserError, match=r"dualdistill\[viz\]"):
        Recording(tmp_path / "recording.rrd")


def test_points_boxes_and_cameras_of_each_sample_are_recorded(tmp_path):
    pytest.importorskip("rerun")
    batch = random_batch(DataConfig(image_size=(32, 96)), boxes=3, points=50)
    found = boxes((1.0, 2.0, 0.0, 4.0, 2.0, 1.5, 0.3), (5.0, 2.0, 0.0, 4.0, 2.0, 1.5, 0.3), score=[0.9, 0.1])
    layers = [
        BoxLayer(name="annotations", boxes=batch.boxes[0], colour="green"),
        BoxLayer(name="some/student", boxes=found, min_score=0.5),
        BoxLayer(name="nothing", boxes=found.select(torch.tensor([False, False]))),
    ]
    path = tmp_path / "deep" / "recording.rrd"
    with Recording(path) as recording:
        assert batch.points is not None
        recording.add("first", batch.points.features, batch.cameras, layers)
        recording.add("second", None, None, layers)
    content = path.read_bytes()
    assert content[:3] == b"RRF"
    for entity in (b"bev/points", b"bev/CAM_FRONT", b"bev/annotations", b"bev/some/student"):
        assert entity in content
