"""Voxel CenterPoints: published sizes, maps, learning."""

import sys
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from dualdistill.errors import UserError
from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.centerpoint import CenterPointConfig, voxel_centerpoint
from dualdistill.models.voxels import VoxelConfig, VoxelEncoder
from dualdistill.ops.sparse_spconv import spconv
from dualdistill.structures import Boxes, Points, weighted_sum
from tests.models.center_scenes import random_boxes
from tests.models.test_centerpoint import batch_of, one_step, points_of

VOXELS = VoxelConfig(size=0.2, height=0.4, channels=(4, 8, 8), out_channels=8, blocks=1, backend="reference")
SMALL = CenterPointConfig(
    reach=6.4,
    voxel=VOXELS,
    stage_channels=(8, 16),
    stage_layers=(1, 1),
    stage_strides=(1, 2),
    neck_channels=8,
    neck_stage=0,
    norm_momentum=0.1,
    head=CenterHeadConfig(shared_channels=8, head_channels=8),
)


@pytest.mark.parametrize(("size", "cells"), [(0.1, 128), (0.075, 180)])
def test_full_size_teachers_have_the_published_sizes(size, cells):
    config = voxel_centerpoint(size)
    with torch.device("meta"):
        teacher = config.build()
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in teacher.named_children()}
    assert counts == {"encoder": 2_694_352, "backbone": 4_280_832, "neck": 295_936, "head": 1_667_142}
    assert config.canvas_channels == 256
    assert config.canvas_grid.shape == config.head_grid.shape == (cells, cells)
    assert config.voxel.depth(config.z_range) == 41


def test_a_voxel_holds_the_mean_of_its_points():
    encoder = VoxelEncoder(5, VOXELS, BevGrid.around(6.4, 0.2), (-5.0, 3.0))
    features = torch.tensor(
        [[0.05, 0.05, 0.1, 10.0, 0.0], [0.15, 0.05, 0.15, 20.0, 0.2], [-0.05, 0.05, 0.1, 1.0, 0.0], [0, 0, 3.0, 9, 0]]
    )
    mean, sites = encoder.average(Points(features=features, sample=torch.tensor([0, 0, 0, 0])), 1)
    assert sites.cells.tolist() == [[0, 12, 32, 31], [0, 12, 32, 32]]  # the highest point is out of range
    assert_close(mean, torch.stack([features[2], features[:2].mean(0)]))
    assert sites.shape == (21, 64, 64)


def test_the_order_of_points_does_not_matter():
    teacher = SMALL.build().eval()
    points = points_of([400, 300], reach=7.0)
    shuffled = torch.randperm(700)
    other = Points(features=points.features[shuffled], sample=points.sample[shuffled])
    assert_close(teacher.encoder(points, 2), teacher.encoder(other, 2), rtol=1e-4, atol=1e-5)


def test_maps_of_the_detector_cover_one_extent_at_their_resolutions():
    output = SMALL.build().eval()(batch_of(points_of([500, 200], reach=7.0), (Boxes.empty(), Boxes.empty())))
    assert output.extent == pytest.approx((-6.4, -6.4, 6.4, 6.4))
    assert output.canvas.shape == (2, SMALL.canvas_channels, 16, 16)
    assert [tuple(stage.shape[1:]) for stage in output.stages] == [(8, 16, 16), (16, 8, 8)]
    assert output.neck.shape == (2, 16, 16, 16)
    assert output.predictions.heatmap.shape == (2, 10, 16, 16)


def test_every_parameter_learns():
    teacher = SMALL.build().to(memory_format=torch.channels_last)  # as training lays it out
    boxes = replace(random_boxes(6, seed=1, reach=6.0), label=torch.tensor([0, 2, 3, 5, 7, 8]))
    losses = one_step(teacher, batch_of(points_of([900, 700], reach=6.4), (boxes, Boxes.empty())))
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    for name, parameter in teacher.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("counts", [[0, 0], [1, 0]], ids=["no point", "one point"])
def test_hardly_any_points_still_train(counts):
    teacher = SMALL.build()
    losses = one_step(teacher, batch_of(points_of(counts, reach=5.0), (Boxes.empty(), Boxes.empty())))
    assert all(loss.isfinite() for loss in losses.values())
    assert all(parameter.grad is not None for parameter in teacher.parameters())


def test_a_few_steps_lower_the_loss():
    teacher = SMALL.build()
    boxes = random_boxes(4, seed=5, reach=5.0, apart=3.2)
    cloud = boxes.center[:, None] + (torch.rand(4, 60, 3) - 0.5) * boxes.size[:, None]
    features = torch.cat([cloud.flatten(0, 1), torch.rand(240, 2)], dim=1)
    batch = batch_of(Points(features=features, sample=torch.zeros(240).long()), (boxes,))
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=1e-2)
    totals = []
    for _ in range(12):
        optimizer.zero_grad()
        total = weighted_sum(teacher.losses(teacher(batch), teacher.targets(batch)), teacher.weights)
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.7 * totals[0]


def test_mixed_precision_keeps_voxels_exact():
    teacher = SMALL.build()
    with torch.autocast("cpu", torch.bfloat16):
        output = teacher(batch_of(points_of([900], reach=6.4), (Boxes.empty(),)))
    assert output.canvas.dtype == torch.float32
    assert output.predictions.heatmap.dtype == torch.bfloat16


def test_both_backends_are_one_network():
    pytest.importorskip("spconv")
    reference = SMALL.build()
    other = replace(SMALL, voxel=replace(VOXELS, backend="spconv")).build()
    other.load_state_dict(reference.state_dict())
    points = points_of([900, 700], reach=6.4)
    canvases = [teacher.encoder(points, 2) for teacher in (reference, other)]
    assert_close(canvases[1], canvases[0], rtol=1e-4, atol=1e-4)
    for canvas in canvases:
        canvas.square().sum().backward()
    for ours, theirs in zip(reference.encoder.parameters(), other.encoder.parameters(), strict=True):
        assert_close(theirs.grad, ours.grad, rtol=1e-3, atol=1e-3)


def test_without_the_extra_the_message_names_it_and_the_way_round(monkeypatch):
    monkeypatch.setitem(sys.modules, "spconv.pytorch", None)  # an import of it fails
    spconv.cache_clear()
    config = replace(SMALL, voxel=replace(VOXELS, backend="spconv"))
    teacher = config.build()  # weights can be loaded and converted all the same
    with pytest.raises(UserError, match=r"dualdistill\[voxel\].*teacher\.voxel\.backend=reference"):
        teacher(batch_of(points_of([10], reach=5.0), (Boxes.empty(),)))
    with pytest.raises(UserError, match=r"dualdistill\[voxel\]"):
        config.voxel.check_backend()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"pillar": 0.4}, "pillar has no effect with voxels"),
        ({"pillar_channels": (8,), "pillar_points": 20}, "pillar_channels, pillar_points has no effect"),
        ({"z_range": (-5.0, 3.1)}, "do not divide"),
        ({"z_range": (-0.4, 0.4)}, "too few"),
        ({"reach": 6.6}, "cannot be merged"),
    ],
)
def test_settings_that_cannot_be_built_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        replace(SMALL, **wrong)


def test_only_published_voxels_have_a_name():
    with pytest.raises(ValueError, match=r"0\.1 m or 0\.075 m"):
        voxel_centerpoint(0.2)
