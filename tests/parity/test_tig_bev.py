"""TiG-BEV against recorded numbers of its released code (ADLab3Ds/TiG-BEV at 0b85461, CPU, float32).

Keypoints are sampled as released, up to a cell beside their places (docs/methods/tig_bev.md#keypoints).
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from dualdistill.data.depth import depth_labels, owners_of_labels, owners_of_points
from dualdistill.distill.tig_bev import (
    TigBevConfig,
    expected_depth,
    grid_positions,
    inner_depth_loss,
    keypoints,
    relation_loss,
    sample_map,
)
from dualdistill.geometry.boxes import points_in_boxes
from dualdistill.geometry.grid import BevGrid
from dualdistill.geometry.transforms import rigid
from tests.geometry.reference import boxes_from_legacy

GOLDEN = Path(__file__).parent / "golden" / "tigbev"
GRID = BevGrid.around(9.6, 0.8)
WEIGHTS = TigBevConfig().weights
COUNT, MARGIN = 10, 1.6


def recorded(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def scalars(name: str) -> dict[str, float]:
    return json.loads((GOLDEN / f"{name}.json").read_text())["scalars"]


# ---- labels ----


def test_points_lie_in_the_boxes_the_official_kernel_says():
    arrays = recorded("depth_gt_index")
    boxes = boxes_from_legacy(arrays["boxes"], torch.zeros(25, dtype=torch.long))
    assert torch.equal(points_in_boxes(arrays["points"][:, :3], boxes), arrays["point_in_box"].bool())


def test_labels_and_owners_are_the_released_depth_and_foreground_maps():
    arrays = recorded("depth_gt_index")
    boxes = boxes_from_legacy(arrays["boxes"], torch.zeros(25, dtype=torch.long))
    points = arrays["points"][:, :3]
    post = torch.eye(4).repeat(6, 1, 1)
    post[:, :3, :3], post[:, :2, 3] = arrays["post_rots"], arrays["post_trans"][:, :2]
    cameras = (torch.linalg.inv(rigid(arrays["rots"], arrays["trans"])), arrays["intrins"], post)
    labels = depth_labels(
        points,
        *cameras,
        stored_size=(900, 1600),
        image_size=(256, 704),
        stride=16,
        depth_range=(1.0, 60.0),
        variant="nearest",
    )
    owners = owners_of_labels(labels, points, owners_of_points(points, boxes), *cameras, stride=16, variant="nearest")
    assert (arrays["fg_index"] > 0).sum() > 50
    assert_close(labels, arrays["depth_map"], rtol=0, atol=1e-3)
    # The released code sorts by a float32 key that holds cell and depth: of points 0.6 mm apart it takes either.
    same = (labels - arrays["depth_map"]).abs() < 1e-4
    assert (~same).sum() <= 5
    assert torch.equal((owners + 1)[same], arrays["fg_index"].long()[same])


# ---- inner depth ----


def test_the_inner_depth_loss_and_its_gradient_are_the_released_ones():
    arrays = recorded("inner_depth")
    logits = arrays["depth_logits"].unflatten(0, (2, 6)).requires_grad_()
    depths = torch.arange(1.0, 60.0, 4.0)
    owner = arrays["fg_index"].long() - 1
    loss = WEIGHTS["tig/inner_depth"] * inner_depth_loss(expected_depth(logits, depths), arrays["depth_gt"], owner)
    assert_close(loss.item(), scalars("inner_depth")["loss_inner_depth"], rtol=1e-5, atol=0)
    loss.backward()
    assert_close(logits.grad, arrays["grad_inner"].unflatten(0, (2, 6)), rtol=1e-4, atol=1e-6)


# ---- features ----


def points_of(arrays: dict[str, Tensor], margin: float) -> list[Tensor]:
    """Keypoints of both samples."""
    legacy = [arrays[f"boxes.{sample}"] for sample in range(2)]
    return [keypoints(boxes_from_legacy(b, torch.zeros(len(b), dtype=torch.long)), COUNT, margin) for b in legacy]


def sampled(features: Tensor, points: list[Tensor]) -> Tensor:
    return torch.cat([sample_map(m, p, GRID, "released") for m, p in zip(features, points, strict=True)])


def test_keypoints_lie_on_the_released_lattice_in_another_order():
    arrays = recorded("inner_feature")
    ours = grid_positions(torch.cat(points_of(arrays, MARGIN)), GRID, "released")
    theirs = arrays["grid"].flatten(1, 2)
    distance = torch.cdist(ours.double(), theirs.double())
    assert distance.amin(dim=1).max() < 1e-5
    assert distance.amin(dim=2).max() < 1e-5


def test_sampled_features_are_the_released_ones():
    arrays = recorded("inner_feature")
    points = points_of(arrays, MARGIN)
    theirs = arrays["grid"][:2].flatten(1, 2)
    match = torch.cdist(theirs.double(), grid_positions(torch.cat(points), GRID, "released")[:2].double()).argmin(dim=2)
    for who in ("student", "teacher"):
        ours = sampled(arrays[f"{who}_feat"], points)[:2]
        ours = ours.gather(2, match[:, None].expand(-1, ours.shape[1], -1))
        assert_close(ours, arrays[f"{who}_sampled"].flatten(2), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("margin", "suffix"), [(MARGIN, ""), (0.0, "_no_enlarge")])
def test_the_feature_losses_are_the_released_ones(margin, suffix):
    arrays, expected = recorded("inner_feature"), scalars("inner_feature")
    points = points_of(arrays, margin)
    ours, theirs = sampled(arrays["student_feat"], points), sampled(arrays["teacher_feat"], points)
    embedded = F.conv2d(ours[..., None], arrays["embed.weight"], arrays["embed.bias"])[..., 0]
    keypoint = WEIGHTS["tig/inter_keypoint"] * relation_loss(ours.mT, theirs.mT)
    channel = WEIGHTS["tig/inter_channel"] * relation_loss(embedded, theirs)
    assert_close(keypoint.item(), expected[f"loss_inter_keypoint{suffix}"], rtol=1e-4, atol=0)
    assert_close(channel.item(), expected[f"loss_inter_channel{suffix}"], rtol=1e-4, atol=0)


def test_the_gradients_of_the_feature_losses_are_the_released_ones():
    arrays = recorded("inner_feature")
    student, points = arrays["student_feat"].requires_grad_(), points_of(arrays, MARGIN)
    weight, bias = arrays["embed.weight"].requires_grad_(), arrays["embed.bias"].requires_grad_()
    ours, theirs = sampled(student, points), sampled(arrays["teacher_feat"], points)
    keypoint = WEIGHTS["tig/inter_keypoint"] * relation_loss(ours.mT, theirs.mT)
    (gradient,) = torch.autograd.grad(keypoint, student, retain_graph=True)
    assert_close(gradient, arrays["grad_keypoint"], rtol=1e-3, atol=1e-4)
    channel = WEIGHTS["tig/inter_channel"] * relation_loss(F.conv2d(ours[..., None], weight, bias)[..., 0], theirs)
    gradients = torch.autograd.grad(channel, (student, weight, bias))
    for found, name in zip(gradients, ("grad_channel", "grad_embed_weight", "grad_embed_bias"), strict=True):
        assert_close(found, arrays[name], rtol=1e-3, atol=1e-4)
