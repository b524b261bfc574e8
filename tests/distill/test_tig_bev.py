"""TiG-BEV as a whole: its parts, what each may touch, what it refuses (docs/methods/tig_bev.md)."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from dualdistill.distill.method import DistillerInputs
from dualdistill.distill.tig_bev import TigBevConfig, inner_depth_loss, relation_loss
from dualdistill.structures import Boxes, Losses
from tests.distill.conftest import Pair

SMALL = TigBevConfig(keypoints=6)


def losses_of(config: TigBevConfig, pair: Pair) -> Losses:
    return pair.build(config)(pair.teacher, pair.student, pair.targets)


def test_the_defaults_are_the_released_terms_and_weights():
    assert TigBevConfig().weights == {"tig/inner_depth": 1.0, "tig/inter_keypoint": 100.0, "tig/inter_channel": 10.0}


def test_only_the_channel_loss_moves_the_embedding(make_pair):
    pair = make_pair()
    distiller = pair.build(SMALL)
    losses = distiller(pair.teacher, pair.student, pair.targets)
    embedding = tuple(distiller.embed.parameters())
    channel = torch.autograd.grad(losses["tig/inter_channel"], embedding, retain_graph=True)
    assert all(gradient.any() for gradient in channel)
    others = losses["tig/inner_depth"] + losses["tig/inter_keypoint"]
    gradients = torch.autograd.grad(others, embedding, allow_unused=True)
    assert gradients == (None, None)


def test_depth_reaches_the_depth_network_alone_and_features_the_map_before_the_head_alone(make_pair):
    pair = make_pair()
    losses = losses_of(SMALL, pair)
    neck, logits = pair.student.neck, pair.student.camera.depth_logits
    depth = torch.autograd.grad(losses["tig/inner_depth"], (neck, logits), allow_unused=True, retain_graph=True)
    assert depth[0] is None
    assert depth[1].any()
    features = torch.autograd.grad(
        losses["tig/inter_keypoint"] + losses["tig/inter_channel"], (neck, logits), allow_unused=True
    )
    assert features[0].any()
    assert features[1] is None


def test_a_student_with_the_teachers_map_pays_nothing_for_features(make_pair):
    pair = make_pair()
    pair = replace(pair, student=replace(pair.student, neck=pair.teacher.neck.detach().clone().requires_grad_()))
    distiller = pair.build(SMALL)
    with torch.no_grad():
        distiller.embed.weight.copy_(torch.eye(24)[..., None, None])
        distiller.embed.bias.zero_()
    losses = distiller(pair.teacher, pair.student, pair.targets)
    assert losses["tig/inter_keypoint"] < 1e-6
    assert losses["tig/inter_channel"] < 1e-6


def test_without_boxes_features_cost_nothing_and_the_embedding_is_still_part_of_the_graph(make_pair):
    pair = make_pair(boxes=0)
    distiller = pair.build(SMALL)
    losses = distiller(pair.teacher, pair.student, pair.targets)
    assert [loss.item() for loss in losses.values()] == [0, 0, 0]
    torch.stack([*losses.values()]).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in distiller.parameters())  # else DDP would wait for it
    assert not pair.student.neck.grad.any()


def test_all_boxes_of_a_batch_count_alike_whatever_sample_they_are_in(make_pair):
    pair = make_pair(batch=2, boxes=3)
    distiller = pair.build(replace(SMALL, inner_depth_weight=None))
    few = (pair.targets.boxes[0], pair.targets.boxes[1].select(torch.tensor([0])))
    together = distiller(pair.teacher, pair.student, replace(pair.targets, boxes=few))
    single = []
    for sample, boxes in enumerate(few):
        for k in range(len(boxes)):
            one = [Boxes.empty(), Boxes.empty()]
            one[sample] = boxes.select(torch.tensor([k]))
            single.append(distiller(pair.teacher, pair.student, replace(pair.targets, boxes=tuple(one))))
    for name, loss in together.items():
        assert_close(loss, torch.stack([each[name] for each in single]).mean(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("part", ["inner_depth", "inter_keypoint", "inter_channel"])
def test_each_part_alone_is_what_it_is_among_the_others(part, make_pair):
    pair = make_pair()
    others = {f"{name}_weight": None for name in ("inner_depth", "inter_keypoint", "inter_channel") if name != part}
    whole, alone = pair.build(SMALL), pair.build(replace(SMALL, **others))
    alone.load_state_dict({k: v for k, v in whole.state_dict().items() if k in alone.state_dict()})
    losses = alone(pair.teacher, pair.student, pair.targets)
    assert losses.keys() == alone.config.weights.keys() == {f"tig/{part}"}
    expected = whole(pair.teacher, pair.student, pair.targets)
    assert torch.equal(losses[f"tig/{part}"], expected[f"tig/{part}"])


def test_depth_is_expected_with_the_bins_of_the_student(make_pair):
    pair = make_pair()
    depths = torch.arange(1.0, 65.0, 4.0)
    depth = (pair.student.camera.depth_logits.softmax(dim=2) * depths[:, None, None]).sum(dim=2)
    expected = inner_depth_loss(depth, pair.targets.depth, pair.targets.depth_instance)
    assert_close(losses_of(SMALL, pair)["tig/inner_depth"], expected)


def test_maps_before_the_heads_may_differ_in_size(make_pair):
    pair = make_pair()
    fine = torch.randn(2, 24, 32, 32).relu()
    pair = replace(pair, teacher=replace(pair.teacher, neck=fine))
    assert all(loss.isfinite() for loss in losses_of(SMALL, pair).values())


def test_untrained_features_cost_what_was_seen_of_untrained_ones():
    torch.manual_seed(0)
    ours, theirs = torch.randn(3, 256, 576), torch.randn(3, 512, 576).relu()
    embedded = torch.nn.functional.conv1d(ours, torch.nn.Conv1d(256, 512, 1).weight)
    assert 60 < 100 * relation_loss(ours.mT, theirs.mT) < 195
    assert 17 < 10 * relation_loss(embedded, theirs).detach() < 20.5


def test_what_inner_depth_needs_is_said(make_pair):
    pair = make_pair()
    distiller = pair.build(SMALL)
    for targets in (replace(pair.targets, depth_instance=None), replace(pair.targets, depth=None)):
        with pytest.raises(ValueError, match="set depth_instance in the data config, or inner_depth_weight to none"):
            distiller(pair.teacher, pair.student, targets)
    coarse_depth = {"depth": torch.ones(2, 6, 2, 5), "depth_instance": torch.zeros(2, 6, 2, 5).long()}
    coarse = replace(pair, targets=replace(pair.targets, instances=None, **coarse_depth))
    with pytest.raises(ValueError, match=r"has \(4, 11\) cells, the depth labels \(2, 5\)"):
        losses_of(SMALL, coarse)
    features_only = replace(SMALL, inner_depth_weight=None)
    unlabelled = replace(pair, targets=replace(pair.targets, depth=None, depth_instance=None))
    assert losses_of(features_only, unlabelled).keys() == {"tig/inter_keypoint", "tig/inter_channel"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"inner_depth_weight": None, "inter_keypoint_weight": None, "inter_channel_weight": None},
            "nothing to distil",
        ),
        ({"keypoints": 1}, "from 2"),
        ({"margin": -1.0}, "margin must be a number from 0"),
        ({"inter_channel_weight": -1.0}, "inter_channel_weight must be a number from 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TigBevConfig(**options)


def test_other_ground_is_refused(make_pair):
    shapes = make_pair().shapes
    with pytest.raises(ValueError, match="one rectangle"):
        TigBevConfig().build(
            DistillerInputs(teacher=shapes["teacher"], student=replace(shapes["student"], extent=(0, 0, 1, 1)))
        )
