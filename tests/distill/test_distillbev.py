"""DistillBEV as a whole: its adapters, its balance, and what DualDistill kept of it (docs/methods/distillbev.md)."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dualdistill.distill.align import UpsampleConv3, neck_aligner
from dualdistill.distill.distillbev import DistillBev, DistillBevConfig
from dualdistill.distill.dualdistill import DualDistillConfig, MfdConfig
from dualdistill.distill.method import DistillerInputs
from dualdistill.distill.mfd import RegionConfig
from dualdistill.geometry.boxes import transform_boxes
from dualdistill.geometry.cameras import bev_augmentation
from dualdistill.structures import BevOutput, HeadOutput, Losses, Targets, weighted_sum
from tests.distill.conftest import Pair

LEVELS = ("stage1", "stage2", "neck")


def losses_of(distiller: nn.Module, pair: Pair) -> Losses:
    return distiller(pair.teacher, pair.student, pair.targets)


def aligned(distiller: DistillBev, student: BevOutput) -> dict[str, Tensor]:
    maps = dict(zip(LEVELS, (*student.stages[1:], student.neck), strict=True))
    return {level: align(maps[level]) for level, align in distiller.align.items()}


def identity_kernels(distiller: DistillBev) -> None:
    with torch.no_grad():
        for level in distiller.mimic.levels.values():
            level.spatial.weight.zero_()[0, 0, 1, 1] = 1
            level.spatial.bias.zero_()


def changed(output: BevOutput, change) -> BevOutput:
    """The output with `change` applied to each of its BEV maps."""
    heatmap = change(output.predictions.heatmap)
    return replace(
        output,
        canvas=change(output.canvas),
        stages=tuple(change(stage) for stage in output.stages),
        neck=change(output.neck),
        predictions=HeadOutput(heatmap=heatmap, regression=torch.zeros(len(heatmap), 6, 10, 16, 16)),
        camera=None,
    )


def test_the_defaults_are_the_released_terms_and_weights():
    terms = {"foreground": 6e-3, "background": 4e-2, "spatial": 2.5e-3}
    expected = {f"mfd/{level}/{term}": weight for level in LEVELS for term, weight in terms.items()}
    assert DistillBevConfig().weights == expected | {"mfd/neck/false_positive": 6e-2}


def test_the_adapters_have_the_published_sizes():
    adapters = (
        UpsampleConv3((256, 32, 32), (128, 128, 128)),
        UpsampleConv3((512, 16, 16), (256, 64, 64)),
        neck_aligner((256, 128, 128), (384, 128, 128)),
    )
    assert [sum(p.numel() for p in a.parameters()) for a in adapters] == [165_760, 659_200, 98_688]


def test_adapted_encoder_maps_are_never_negative(make_pair):
    pair = make_pair()
    maps = aligned(pair.build(DistillBevConfig()), pair.student)
    assert all(maps[level].min() >= 0 and maps[level].max() > 0 for level in ("stage1", "stage2"))
    assert maps["neck"].min() < 0  # a plain convolution


def test_without_the_three_balancing_devices_it_is_the_squared_error_a_cell(make_pair):
    pair = make_pair(boxes=0)
    config = DistillBevConfig(regions=RegionConfig(spatial_temperature=1e9), false_positives=None)
    distiller = pair.build(config).eval()
    losses, ours = losses_of(distiller, pair), aligned(distiller, pair.student)
    for level, theirs in zip(LEVELS, (*pair.teacher.stages[1:], pair.teacher.neck), strict=True):
        expected = (ours[level] - theirs).square().sum() / (2 * theirs[0, 0].numel())
        assert_close(losses[f"mfd/{level}/background"], expected, rtol=1e-5, atol=0)
        assert losses[f"mfd/{level}/foreground"] == 0


def test_it_is_dualdistill_without_what_dualdistill_adds(make_pair):
    pair = make_pair()
    ours = pair.build(DistillBevConfig()).eval()
    theirs = pair.build(DualDistillConfig(mfd=MfdConfig(alignment="upsample-conv"), crd=None)).eval()
    theirs.load_state_dict(ours.state_dict())
    expected = losses_of(theirs, pair)
    found = losses_of(ours, pair)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_student_that_says_what_the_teacher_says_pays_nothing(make_pair):
    pair = make_pair()
    distiller = pair.build(DistillBevConfig()).eval()
    identity_kernels(distiller)
    maps = aligned(distiller, pair.student)
    stages = (pair.teacher.stages[0], maps["stage1"], maps["stage2"])
    losses = losses_of(distiller, replace(pair, teacher=replace(pair.teacher, stages=stages, neck=maps["neck"])))
    for name, loss in losses.items():
        assert loss.abs() < (1e-4 if name.endswith("spatial") else 1e-12), name


def test_a_batch_said_twice_costs_as_much_as_once(make_pair):
    pair = make_pair()
    distiller = pair.build(DistillBevConfig()).eval()

    def twice(x: Tensor) -> Tensor:
        return torch.cat([x, x]).detach()

    targets = Targets(boxes=pair.targets.boxes * 2, heatmap=twice(pair.targets.heatmap))
    again = replace(pair, teacher=changed(pair.teacher, twice), student=changed(pair.student, twice), targets=targets)
    for name, loss in losses_of(distiller, pair).items():
        assert_close(losses_of(distiller, again)[name], loss, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("flip_x", "flip_y"), [(True, False), (False, True), (True, True)])
def test_a_mirrored_scene_costs_the_same(flip_x, flip_y, make_pair):
    pair = make_pair()
    distiller = pair.build(DistillBevConfig()).eval()
    identity_kernels(distiller)
    axes = [axis for axis, flipped in ((3, flip_x), (2, flip_y)) if flipped]

    def mirrored(x: Tensor) -> Tensor:
        return x.flip(axes).detach()

    matrix = bev_augmentation(angle=0.0, scale=1.0, flip_x=flip_x, flip_y=flip_y)
    boxes = tuple(transform_boxes(matrix, each) for each in pair.targets.boxes)
    mirror = replace(
        pair,
        teacher=changed(pair.teacher, mirrored),
        student=changed(pair.student, mirrored),
        targets=Targets(boxes=boxes, heatmap=mirrored(pair.targets.heatmap)),
    )
    expected = losses_of(distiller, pair)
    assert all(expected[f"mfd/{level}/foreground"] > 0 for level in LEVELS)
    for name, loss in losses_of(distiller, mirror).items():
        assert_close(loss, expected[name], rtol=1e-4, atol=1e-5)


def test_zero_weights_leave_the_student_without_a_gradient(make_pair):
    pair = make_pair()
    losses = losses_of(pair.build(DistillBevConfig()), pair)
    weighted_sum(losses, dict.fromkeys(losses, 0.0)).backward()
    assert not any(m.grad.any() for m in (*pair.student.stages[1:], pair.student.neck))


def test_the_layers_of_the_papers_ablation_can_be_chosen(make_pair):
    pair = make_pair()
    for stages in ((), (2,), (1, 2), (0, 1, 2)):
        config = DistillBevConfig(student_stages=stages, teacher_stages=stages)
        distiller = pair.build(config)
        losses_of(distiller, pair)["mfd/neck/background"].backward()
        assert sorted(distiller.align) == sorted([*(f"stage{stage}" for stage in stages), "neck"])


def test_no_judge_is_asked_and_no_response_distilled(make_pair):
    distiller = DistillBevConfig().build(DistillerInputs(**make_pair().shapes))
    assert not [name for name, _ in distiller.named_children() if name not in ("align", "mimic")]


def test_weight_decay_spares_norms_and_biases_only(make_pair):
    spared = make_pair().build(DistillBevConfig()).no_weight_decay()
    assert {"align.stage1.rest.0.weight", "align.neck.bias", "mimic.levels.neck.spatial.bias"} <= spared
    assert "align.stage1.first.weight" not in spared


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student_stages": (1,)}, "must pair up"),
        ({"student_stages": (1, 1)}, "must pair up"),
        ({"spatial_weight": -1.0}, "spatial_weight must be a number from 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DistillBevConfig(**options)


def test_shapes_that_cannot_be_distilled_are_refused(make_pair):
    shapes = make_pair().shapes
    with pytest.raises(ValueError, match="the student has stages 0 to 2, the config has"):
        DistillBevConfig(student_stages=(1, 3)).build(DistillerInputs(**shapes))
    with pytest.raises(ValueError, match="one rectangle"):
        DistillBevConfig().build(
            DistillerInputs(teacher=shapes["teacher"], student=replace(shapes["student"], extent=(0, 0, 1, 1)))
        )
