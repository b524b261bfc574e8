from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.centerpoint import CenterPoint, CenterPointConfig
from dualdistill.models.layers.second import SecondFpn
from dualdistill.models.pillars import PillarEncoder, decorate
from dualdistill.ops.voxelize import dynamic_voxelize
from dualdistill.structures import Batch, Boxes, Points, SampleMeta, weighted_sum
from tests.models.center_scenes import random_boxes

SMALL = CenterPointConfig(
    reach=12.8,
    pillar=0.4,
    pillar_channels=(8,),
    stage_channels=(8, 8, 16),
    stage_layers=(1, 1, 1),
    neck_channels=8,
    head=CenterHeadConfig(shared_channels=8, head_channels=8),
)


def points_of(counts: list[int], channels: int = 5, seed: int = 0, reach: float = 14.0) -> Points:
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(sum(counts), channels, generator=generator)
    features[:, :2] = (2 * features[:, :2] - 1) * reach
    features[:, 2] = features[:, 2] * 10 - 6
    sample = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return Points(features=features, sample=sample)


def batch_of(points: Points | None, boxes: tuple[Boxes, ...]) -> Batch:
    still = torch.eye(4, dtype=torch.float64)
    meta = tuple(
        SampleMeta(token=str(index), timestamp_us=index, global_from_bev=still, ego_from_bev=still)
        for index in range(len(boxes))
    )
    frames = torch.eye(4).repeat(len(boxes), 1, 1)
    return Batch(boxes=boxes, augmented_from_bev=frames, meta=meta, points=points)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (CenterPointConfig(), 5_982_790),
        (CenterPointConfig(point_channels=17), 5_983_558),
    ],
    ids=["lidar", "virtual points"],
)
def test_full_size_teachers_have_the_published_number_of_parameters(config, parameters):
    assert sum(parameter.numel() for parameter in config.build().parameters()) == parameters


def test_parts_have_the_published_number_of_parameters():
    teacher = CenterPointConfig().build()
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in teacher.named_children()}
    assert counts == {"encoder": 768, "backbone": 4_207_616, "neck": 180_992, "head": 1_593_414}


# --- pillars


def test_points_have_the_worked_columns():
    raw = torch.tensor([[0.05, 0.05, 0.0, 10.0, 0.0], [0.15, 0.05, 1.0, 20.0, 0.1]])
    grid = BevGrid.around(51.2, 0.2)
    pillars = dynamic_voxelize(raw[:, :3], torch.zeros(2).long(), grid, (-5.0, 3.0), 1)
    assert pillars.cells.tolist() == [[0, 256, 256]]
    extra = torch.tensor([[-0.05, 0.0, -0.5, -0.05, -0.05], [0.05, 0.0, 0.5, 0.05, -0.05]])
    assert_close(decorate(raw, pillars, grid), torch.cat([raw, extra], dim=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [(8,), (4, 8)])
def test_the_order_of_points_does_not_matter(channels):
    encoder = PillarEncoder(5, channels, BevGrid.around(12.8, 0.4), (-5.0, 3.0))
    points = points_of([400, 300])
    shuffled = torch.randperm(700)
    other = Points(features=points.features[shuffled], sample=points.sample[shuffled])
    assert_close(encoder(points, 2), encoder(other, 2), rtol=1e-4, atol=1e-5)


def test_points_out_of_range_leave_no_trace_not_even_in_the_statistics():
    config = (5, (8,), BevGrid.around(12.8, 0.4), (-5.0, 3.0))
    one = PillarEncoder(*config)
    other = PillarEncoder(*config)
    other.load_state_dict(one.state_dict())
    points = points_of([400])
    x, y, z = points.features[:, :3].unbind(dim=1)
    inside = (x.abs() < 12.8) & (y.abs() < 12.8) & (z >= -5) & (z < 3)
    assert 0 < inside.sum() < 400
    kept = Points(features=points.features[inside], sample=points.sample[inside])
    assert_close(one(points, 1), other(kept, 1))
    assert_close(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("counts", [[0, 0], [1, 0], [0, 1]], ids=["no point", "one point", "one in the second"])
@pytest.mark.parametrize("channels", [(8,), (4, 8)], ids=["one layer", "two layers"])
def test_hardly_any_points_are_legal_in_training(counts, channels):
    encoder = PillarEncoder(5, channels, BevGrid.around(12.8, 0.4), (-5.0, 3.0)).train()
    canvas = encoder(points_of(counts, reach=10.0), 2)
    assert canvas.shape == (2, channels[-1], 64, 64)
    assert canvas.isfinite().all()
    canvas.sum().backward()
    assert all(buffer.isfinite().all() for buffer in encoder.buffers())


# ------------------------------------------------------------------------------------ the detector


def test_maps_of_the_detector_cover_one_extent_at_their_resolutions():
    teacher = SMALL.build().eval()
    output = teacher(batch_of(points_of([500, 200]), (Boxes.empty(), Boxes.empty())))
    assert output.extent == pytest.approx((-12.8, -12.8, 12.8, 12.8))
    assert output.canvas.shape == (2, 8, 64, 64)
    assert [tuple(stage.shape[1:]) for stage in output.stages] == [(8, 32, 32), (8, 16, 16), (16, 8, 8)]
    assert output.neck.shape == (2, 24, 16, 16)
    assert output.predictions.heatmap.shape == (2, 10, 16, 16)
    assert SMALL.head_grid.shape == (16, 16)
    assert_close(vars(output.head(output.neck)), vars(output.predictions))


def one_step(teacher: CenterPoint, batch: Batch) -> dict[str, torch.Tensor]:
    losses = teacher.losses(teacher(batch), teacher.targets(batch))
    assert losses.keys() == teacher.weights.keys()
    weighted_sum(losses, teacher.weights).backward()
    return losses


def test_every_parameter_learns():
    teacher = SMALL.build()
    # One object for each task: two could pull at a bias of the absolute error in opposite directions.
    boxes = replace(random_boxes(6, seed=1, reach=12.0), label=torch.tensor([0, 2, 3, 5, 7, 8]))
    losses = one_step(teacher, batch_of(points_of([900, 700]), (boxes, Boxes.empty())))
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    for name, parameter in teacher.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_batch_without_points_or_boxes_still_trains():
    teacher = SMALL.build()
    losses = one_step(teacher, batch_of(points_of([0, 0]), (Boxes.empty(), Boxes.empty())))
    assert all(loss.isfinite() for loss in losses.values())


def test_targets_are_those_of_the_own_head():
    teacher = SMALL.build()
    boxes = (random_boxes(12, seed=1, reach=12.0),)
    targets = teacher.targets(batch_of(points_of([10]), boxes))
    assert targets.heatmap.shape == (1, 10, 16, 16)
    assert int((targets.heatmap == 1).sum()) == 12
    assert targets.boxes is boxes


def test_mixed_precision_keeps_points_exact_and_losses_single():
    teacher = SMALL.build()
    boxes = (random_boxes(12, seed=1, reach=12.0),)
    batch = batch_of(points_of([900]), boxes)
    with torch.autocast("cpu", torch.bfloat16):
        output = teacher(batch)
        losses = teacher.losses(output, teacher.targets(batch))
        found = teacher.detect(output, batch)
    assert output.predictions.heatmap.dtype == torch.bfloat16
    assert output.canvas.dtype == torch.float32
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert found[0].center.dtype == torch.float32


def test_a_few_steps_find_the_boxes_they_were_shown():
    teacher = replace(SMALL, reach=6.4).build()
    boxes = random_boxes(4, seed=5, reach=5.0, apart=3.2)
    cloud = boxes.center[:, None] + (torch.rand(4, 60, 3) - 0.5) * boxes.size[:, None]
    features = torch.cat([cloud.flatten(0, 1), torch.rand(240, 2)], dim=1)
    batch = batch_of(Points(features=features, sample=torch.zeros(240).long()), (boxes,))
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        weighted_sum(teacher.losses(teacher(batch), teacher.targets(batch)), teacher.weights).backward()
        optimizer.step()
    (found,) = teacher.detect(teacher(batch), batch)  # still with the statistics of this very batch
    assert found.score is not None
    sure = found.select(found.score > 0.3)
    near = torch.cdist(boxes.center[:, :2], sure.center[:, :2]) < teacher.config.head_grid.cell
    assert (near & (boxes.label[:, None] == sure.label)).any(dim=1).all()


def test_points_that_do_not_fit_are_refused():
    teacher = SMALL.build()
    with pytest.raises(ValueError, match="needs LiDAR points"):
        teacher(batch_of(None, (Boxes.empty(),)))
    with pytest.raises(ValueError, match="5 channels, got 17"):
        teacher(batch_of(points_of([4], channels=17), (Boxes.empty(),)))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"stage_layers": (1, 1)}, "each stage needs"),
        ({"neck_stage": 3}, "neck_stage"),
        ({"z_range": (3.0, -5.0)}, "z_range"),
        ({"pillar": 0.3}, "do not divide"),
        ({"reach": 10.2, "pillar": 0.2}, "cannot be merged"),
    ],
)
def test_settings_that_cannot_be_built_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        CenterPointConfig(**wrong)


def test_a_neck_takes_whole_scales_only():
    with pytest.raises(ValueError, match="whole number"):
        SecondFpn((4,), (4,), (1.5,))
