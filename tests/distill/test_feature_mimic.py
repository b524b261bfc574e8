"""The region-weighted feature loss."""

import math

import pytest
import torch
from torch.testing import assert_close

from dualdistill.distill.mfd import FalsePositiveConfig, FeatureMimic, Foreground, LevelMimic, RegionConfig, foreground
from dualdistill.geometry.grid import BevGrid
from dualdistill.structures import HeadOutput, Targets

GRID = BevGrid.around(6.4, 0.8)


def mimic(levels=("stage1", "neck"), **options) -> FeatureMimic:
    return FeatureMimic(dict.fromkeys(levels, GRID), RegionConfig(**options), FalsePositiveConfig())


def identity_kernel(module: FeatureMimic) -> None:
    with torch.no_grad():
        for level in module.levels.values():
            level.spatial.weight.zero_()[0, 0, 1, 1] = 1
            level.spatial.bias.zero_()


def losses_of(module: FeatureMimic, pair, teacher, aligned):
    levels = tuple(module.levels)
    return module(
        dict.fromkeys(levels, teacher), dict.fromkeys(levels, aligned), pair.teacher.predictions, pair.targets
    )


def test_equal_maps_cost_nothing(make_pair):
    module, features = mimic(), torch.randn(2, 8, 16, 16)
    identity_kernel(module)
    losses = losses_of(module, make_pair(), features, features.clone())
    assert all(loss.abs() < 1e-4 for name, loss in losses.items() if name.endswith("spatial"))
    assert all(loss == 0 for name, loss in losses.items() if not name.endswith("spatial"))


@pytest.mark.parametrize("scale", [0.3, 3.0, 20.0])
def test_a_rounded_teacher_changes_a_loss_by_its_attention_and_its_distance_alone(scale):
    """Softmax: |log A' - log A| <= 2 max|strength' - strength| / T = 2d. The root of a loss is a norm, so it obeys the
    triangle inequality: sqrt(loss') <= e^d (sqrt(loss) + |teacher' - teacher|), on any processor."""
    level = LevelMimic(RegionConfig(student_attention=0.0))
    teacher, aligned = scale * torch.randn(2, 8, 16, 16), scale * torch.randn(2, 8, 16, 16)
    rounded = teacher.bfloat16().float()
    nothing = Foreground(mask=torch.zeros(2, 1, 16, 16).bool(), scale=torch.zeros(2, 1, 16, 16))
    strength, other = teacher.abs().mean(dim=1), rounded.abs().mean(dim=1)
    attention = float((strength - other).abs().max()) / level.config.spatial_temperature
    assert attention <= 2**-9 * float(strength.max()) / level.config.spatial_temperature
    exact, distance, came = (
        float(level(reference, features, nothing, None)["background"]) ** 0.5
        for reference, features in ((teacher, aligned), (teacher, rounded), (rounded, aligned))
    )
    assert came <= math.exp(attention) * (exact + distance) * (1 + 1e-5)
    assert exact <= math.exp(attention) * came + distance * (1 + 1e-5)


def test_a_batch_said_twice_costs_as_much_as_once(make_pair):
    module, pair = mimic(), make_pair()
    teacher, aligned = torch.randn(2, 8, 16, 16), torch.randn(2, 8, 16, 16)
    once = losses_of(module, pair, teacher, aligned)

    def twice(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x])

    predictions = HeadOutput(
        heatmap=twice(pair.teacher.predictions.heatmap), regression=twice(pair.teacher.predictions.regression)
    )
    targets = Targets(boxes=pair.targets.boxes * 2, heatmap=twice(pair.targets.heatmap))
    levels = tuple(module.levels)
    again = module(dict.fromkeys(levels, twice(teacher)), dict.fromkeys(levels, twice(aligned)), predictions, targets)
    for name, loss in once.items():
        assert_close(again[name], loss, rtol=1e-5, atol=0)


def test_without_objects_and_attention_it_is_the_mean_squared_error_over_cells():
    level = LevelMimic(RegionConfig(spatial_temperature=1e9))
    teacher, aligned = torch.randn(2, 8, 16, 16), torch.randn(2, 8, 16, 16)
    nobody = Foreground(mask=torch.zeros(2, 1, 16, 16, dtype=torch.bool), scale=torch.zeros(2, 1, 16, 16))
    losses = level(teacher, aligned, nobody, None)
    assert_close(losses["background"], 8 * (aligned - teacher).square().mean(), rtol=1e-5, atol=0)
    assert losses["foreground"] == 0
    assert "false_positive" not in losses


def test_false_positives_are_told_apart_only_where_asked(make_pair):
    losses = losses_of(mimic(), make_pair(), torch.randn(2, 8, 16, 16), torch.randn(2, 8, 16, 16))
    assert {name for name in losses if name.endswith("false_positive")} == {"mfd/neck/false_positive"}
    assert losses["mfd/neck/false_positive"] > 0
    assert losses["mfd/neck/foreground"] == losses["mfd/stage1/foreground"]  # objects are objects at every level


def test_a_teacher_without_false_positives_and_a_map_full_of_objects_are_legal(make_pair):
    pair = make_pair()
    silent = HeadOutput(heatmap=torch.full((2, 10, 16, 16), -20.0), regression=torch.zeros(2, 6, 10, 16, 16))
    everywhere = pair.targets.boxes[0].select(torch.tensor([0]))
    everywhere.size.fill_(100)
    targets = Targets(boxes=(everywhere, everywhere), heatmap=pair.targets.heatmap)
    maps = dict.fromkeys(("stage1", "neck"), torch.randn(2, 8, 16, 16))
    zeros = dict.fromkeys(maps, torch.zeros(2, 8, 16, 16))
    losses = mimic()(maps, zeros, silent, targets)
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["mfd/neck/false_positive"] == 0
    assert losses["mfd/neck/background"] == 0
    assert losses["mfd/neck/foreground"] > 0


def test_where_the_student_is_strong_counts_more_if_it_has_a_say(make_pair):
    pair, teacher = make_pair(boxes=0), torch.full((2, 8, 16, 16), 2.0)
    strong_left = torch.full((2, 8, 16, 16), 0.5)
    strong_left[..., :8] = 3.5  # as far from the teacher as the other half

    def pull(say: float) -> tuple[float, float]:
        """Gradient on the left half and on the right one."""
        aligned = strong_left.clone().requires_grad_()
        module = mimic(levels=("stage1",), student_attention=say)
        losses_of(module, pair, teacher, aligned)["mfd/stage1/background"].backward()
        assert aligned.grad is not None
        return aligned.grad[..., :8].abs().sum().item(), aligned.grad[..., 8:].abs().sum().item()

    left, right = pull(0.0)
    assert left == pytest.approx(right, rel=1e-5)
    left, right = pull(1.0)
    assert left > 2 * right


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_temperature": 0.0}, "spatial_temperature must be a number above 0"),
        ({"student_attention": -1.0}, "student_attention must be a number from 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RegionConfig(**options)


def test_a_student_that_says_nothing_pays_relatively_the_same_under_every_teacher(make_pair):
    module, pair = mimic(relative=True), make_pair()
    module.eval()
    objects = foreground(pair.targets.boxes, GRID)
    weight = objects.scale * objects.mask
    for teacher in (torch.randn(2, 8, 16, 16), 7 * torch.randn(2, 8, 16, 16), torch.randn(2, 8, 16, 16).exp()):
        losses = losses_of(module, pair, teacher, torch.zeros(2, 8, 16, 16))
        assert_close(losses["mfd/neck/foreground"], 8 * weight.sum() / 2, rtol=1e-4, atol=0)
    assert (
        losses_of(mimic(), pair, teacher, torch.zeros_like(teacher))["mfd/neck/foreground"]
        > losses["mfd/neck/foreground"]
    )


def test_relative_losses_differ_from_absolute_ones_by_one_factor_a_level(make_pair):
    teacher, aligned, pair = torch.randn(2, 8, 16, 16), torch.randn(2, 8, 16, 16), make_pair()
    absolute, relative = mimic(), mimic(relative=True)
    relative.load_state_dict(absolute.state_dict())
    plain, scaled = losses_of(absolute, pair, teacher, aligned), losses_of(relative, pair, teacher, aligned)
    ratios = {name: (scaled[name] / plain[name]).item() for name in plain if plain[name] > 0}
    assert ratios["mfd/neck/spatial"] == pytest.approx(1)
    assert ratios["mfd/neck/background"] == pytest.approx(ratios["mfd/neck/foreground"], rel=1e-4)
    assert ratios["mfd/neck/background"] != pytest.approx(1, rel=1e-3)


def test_without_objects_relative_losses_are_absolute():
    nobody = Foreground(mask=torch.zeros(1, 1, 4, 4, dtype=torch.bool), scale=torch.zeros(1, 1, 4, 4))
    teacher, aligned = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    absolute, relative = (LevelMimic(RegionConfig(relative=on)) for on in (False, True))
    relative.load_state_dict(absolute.state_dict())
    assert_close(relative(teacher, aligned, nobody, None), absolute(teacher, aligned, nobody, None))
