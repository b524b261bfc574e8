from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from dualdistill.geometry.boxes import wrap_angle
from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_decode import decode
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.center_training import center_targets
from dualdistill.structures import TASKS, Boxes, HeadOutput
from tests.models.center_scenes import boxes_of, random_boxes

GRID = BevGrid.around(51.2, 0.8)


def perfect(boxes: tuple[Boxes, ...], grid: BevGrid = GRID) -> HeadOutput:
    """The head that answers exactly as the targets want."""
    targets = center_targets(boxes, grid, CenterHeadConfig())
    batch, tasks, _, codes = targets.vector.shape
    room = torch.zeros(batch, tasks, codes, grid.height * grid.width + 1)
    index = torch.where(targets.mask, targets.index, grid.height * grid.width)  # unused slots: past the end
    room.scatter_(3, index[:, :, None].expand(-1, -1, codes, -1), targets.vector.mT)
    logits = targets.heatmap.clamp(1e-4, 1 - 1e-4).logit()
    return HeadOutput(heatmap=logits, regression=room[..., :-1].unflatten(3, grid.shape))


def test_perfect_answers_decode_to_the_boxes():
    boxes = random_boxes(70, seed=3)
    peaks = CenterHeadConfig(score_threshold=0.9)  # the flanks of a peak score, too, and carry no box here
    (found,) = decode(perfect((boxes,)), GRID, peaks)
    assert len(found) == len(boxes)
    nearest = torch.cdist(found.center.double(), boxes.center.double()).argmin(dim=1)
    expected = boxes.select(nearest)
    assert_close(found.label, expected.label)
    assert_close(found.center, expected.center, rtol=0, atol=1e-3)
    assert_close(found.size, expected.size, rtol=0, atol=1e-3)
    assert_close(found.velocity, expected.velocity, rtol=0, atol=1e-3)
    assert wrap_angle(found.yaw - expected.yaw).abs().max() < 1e-4


def test_tasks_come_one_after_the_other_each_by_falling_score():
    output = HeadOutput(heatmap=torch.randn(2, 10, 24, 24) * 2, regression=torch.randn(2, 6, 10, 24, 24))
    task_of_class = torch.tensor([task for task, names in enumerate(TASKS) for _ in names])
    for found in decode(output, BevGrid.around(9.6, 0.8), CenterHeadConfig()):
        task = task_of_class[found.label]
        assert (task.diff() >= 0).all()
        assert found.score is not None
        assert (found.score.diff()[task.diff() == 0] <= 0).all()
        assert task.bincount(minlength=6).max() <= 83


def test_low_temperature_only_raises_the_threshold():
    output = HeadOutput(heatmap=torch.randn(1, 10, 24, 24) - 3, regression=torch.randn(1, 6, 10, 24, 24))
    grid, config = BevGrid.around(9.6, 0.8), CenterHeadConfig()
    (sharp,) = decode(output, grid, config, temperature=0.1)
    (strict,) = decode(output, grid, replace(config, score_threshold=1 / (1 + 9**0.1)), temperature=1.0)
    assert_close(vars(sharp), vars(strict))
    (plain,) = decode(output, grid, config)
    assert 0 < len(sharp) < len(plain)


def test_nothing_above_the_threshold_is_no_box():
    output = HeadOutput(heatmap=torch.full((2, 10, 8, 8), -9.0), regression=torch.zeros(2, 6, 10, 8, 8))
    found = decode(output, BevGrid.around(3.2, 0.8), CenterHeadConfig())
    assert [len(boxes) for boxes in found] == [0, 0]
    assert found[0].label.dtype == torch.long


def test_boxes_centred_out_of_range_are_left_out_and_on_its_border_kept():
    rows = [(1.0, 0.0, 2.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0), (1.0, 6.0, 2.5, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0)]
    output = perfect((boxes_of(rows, [0, 0]),))
    config = CenterHeadConfig(score_threshold=0.9, center_range=(-5.0, -9.0, -9.0, 9.0, 9.0, 2.0))
    (found,) = decode(output, GRID, config)
    assert_close(found.center, torch.tensor([[1.0, 0.0, 2.0]]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("nms", "kept"), [("rotated", 3), ("circle", 2), ("scale", 3)])
def test_each_suppression_keeps_its_own(nms, kept):
    # Three slim cars side by side: no footprints overlap, neighbouring centres are within 2 m. The first is
    # surest.
    rows = [(0.1 + 1.95 * place, 0.1, 0.0, 1.5, 1.5, 1.5, 0.0, 0.0, 0.0) for place in range(3)]
    output = perfect((boxes_of(rows, [0, 0, 0]),))
    output.heatmap.sub_(0.001 * torch.arange(GRID.width))
    (found,) = decode(output, GRID, CenterHeadConfig(score_threshold=0.9, nms=nms))
    assert len(found) == kept


def test_scale_suppression_makes_pedestrians_meet_and_judges_barriers_by_distance():
    rows = [(0.1 + 0.85 * place, 0.1, 0.0, 0.6, 0.6, 1.7, 0.0, 0.0, 0.0) for place in range(2)]
    config = CenterHeadConfig(score_threshold=0.9, nms="scale")
    pedestrian, barrier = 8, 5
    for label, rotated in ((pedestrian, 2), (barrier, 2)):
        output = perfect((boxes_of(rows, [label, label]),))
        assert len(decode(output, GRID, config)[0]) == 1
        assert len(decode(output, GRID, replace(config, nms="rotated"))[0]) == rotated


def test_a_temperature_must_be_positive():
    output = HeadOutput(heatmap=torch.zeros(1, 10, 2, 2), regression=torch.zeros(1, 6, 10, 2, 2))
    with pytest.raises(ValueError, match="temperature"):
        decode(output, BevGrid.around(0.8, 0.8), CenterHeadConfig(), temperature=0.0)
