import pytest
import torch
from torch.testing import assert_close

from benchmarks.boxes import THRESHOLD, box_rows, crowd
from benchmarks.references import boxes as reference
from dualdistill.ops.nms import circle_nms, rotated_nms
from dualdistill.ops.rotated_iou import rotated_iou


@pytest.mark.parametrize("count", [0, 1, 23])
def test_hulls_pair_by_pair_and_the_sweep_find_the_same_overlap(count):
    boxes = crowd(count)[0].double()
    theirs = torch.from_numpy(reference.iou_matrix(boxes.numpy(), boxes.numpy()))
    assert_close(theirs, rotated_iou(boxes, boxes), rtol=0, atol=1e-9)


@pytest.mark.parametrize("count", [0, 1, 37])
def test_loops_over_boxes_keep_the_same(count):
    boxes, scores = crowd(count)
    boxes = boxes.double()
    order = scores.argsort(descending=True, stable=True).numpy()
    kept = reference.rotated_nms(boxes.numpy(), order, THRESHOLD)
    assert rotated_nms(boxes, scores, THRESHOLD, 100, 100).tolist() == kept.tolist()
    near = reference.circle_nms(boxes[:, :2].numpy(), order, 4.0)
    assert circle_nms(boxes[:, :2], scores, 4.0, 100).tolist() == near.tolist()


def test_the_benchmark_compares_equals(monkeypatch):
    monkeypatch.setattr(reference, "compiled", lambda: None)  # compiling takes longer than the loops
    rows = box_rows(20, 30, repeats=1)
    assert len(rows) == 9
    assert all("plain Python" in row.name for row in rows[::3])
    assert all(row.difference < 1e-6 for row in rows if row.difference is not None)
