"""Errors put into perfect masks (docs/methods/mvp.md#imperfect-masks): their laws, and their rates."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dualdistill.data.config import VirtualPointsConfig
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.virtual_points.masks import PAINT_CLASSES, ImageInstances, InstanceMasks, SyntheticMasks
from dualdistill.data.virtual_points.noise import GROUPS, MISSED, MISSED_SMALL, NoisyMasks, confused_with, noisy, warped

SIZE = (225, 400)  # a quarter of the size that pixels are meant for

seeds = st.integers(0, 2**32 - 1)


def rectangles(count: int, side: int = 40, size: tuple[int, int] = SIZE) -> ImageInstances:
    """Squares in the middle of the image, all of one class."""
    masks = torch.zeros(count, *size, dtype=torch.bool)
    masks[:, 10 : 10 + side, 50 : 50 + side] = True
    return ImageInstances.of(masks, ["car"] * count, torch.ones(count))


def with_noise(found: ImageInstances, amount: float, seed: int = 0) -> ImageInstances:
    return noisy(found, amount, np.random.default_rng(seed))


def assert_same(a: ImageInstances, b: ImageInstances) -> None:
    assert torch.equal(a.masks, b.masks)
    assert torch.equal(a.klass, b.klass)
    assert torch.equal(a.score, b.score)


def overlap(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


@given(seed=seeds)
def test_no_noise_changes_nothing(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(4, 9, 16, generator=generator) < 0.3
    names = [PAINT_CLASSES[int(i)] for i in torch.randint(0, 10, (4,), generator=generator)]
    found = ImageInstances.of(masks, names, torch.ones(4))
    assert_same(with_noise(found, 0.0, seed), found)
    assert_same(with_noise(ImageInstances.none((9, 16)), 0.0, seed), ImageInstances.none((9, 16)))


def test_the_same_seed_makes_the_same_errors_and_another_seed_others() -> None:
    found = rectangles(3)
    assert_same(with_noise(found, 1.0, 5), with_noise(found, 1.0, 5))
    assert not torch.equal(with_noise(found, 1.0, 5).score, with_noise(found, 1.0, 6).score)


@pytest.mark.parametrize("seed", range(8))
def test_more_noise_misses_every_object_that_less_noise_misses(seed: int) -> None:
    found = rectangles(6)
    doubts = []
    for amount in (0.3, 1.0):
        score = with_noise(found, amount, seed).score.double()
        doubts.append((1 - score) / amount)  # of an object the same at any amount; of what is not there, larger
    less, more = doubts
    kept = more[more < 0.6]  # what is not there scores less than 0.4
    assert all((less - doubt).abs().min() < 1e-5 for doubt in kept)


def test_at_full_noise_the_rates_are_the_documented_ones() -> None:
    many = with_noise(rectangles(600, 24, (90, 160)), 1.0)
    is_false = many.score < 0.4
    real = ~is_false  # Beta(5, 2) is below 0.4 in 4 of 100
    assert len(many) - 600 * (1 - MISSED) + 60 >= 1
    assert real.sum().item() / 600 == pytest.approx(0.96 * (1 - MISSED), abs=0.05)
    assert many.score[real].mean().item() == pytest.approx(5 / 7, abs=0.04)
    is_car = many.klass == PAINT_CLASSES.index("car")
    assert 1 - is_car[real].float().mean().item() == pytest.approx(0.05, abs=0.03)
    assert {PAINT_CLASSES[k] for k in many.klass[real & ~is_car].tolist()} <= set(GROUPS[0])
    small = with_noise(rectangles(600, 1, (90, 160)), 1.0)  # 10 pixels high in the full image
    assert len(small) / 600 == pytest.approx(1 - MISSED_SMALL, abs=0.06)


def test_outlines_are_off_by_a_few_pixels() -> None:
    truth = rectangles(1).masks[0]
    many = with_noise(rectangles(60), 1.0)
    overlaps = torch.tensor([overlap(mask, truth) for mask in many.masks[many.score >= 0.4]])
    assert 0.8 < overlaps.mean() < 0.98
    assert overlaps.min() > 0.6
    halved = with_noise(rectangles(60), 0.3)
    assert torch.tensor([overlap(mask, truth) for mask in halved.masks[halved.score > 0.4]]).mean() > overlaps.mean()


def test_things_that_are_not_there_are_one_to_three_and_unsure() -> None:
    counts = set()
    for seed in range(40):
        found = with_noise(ImageInstances.none(SIZE), 1.0, seed)
        assert (found.score < 0.4).all()
        assert (found.score > 0).all()
        counts.add(len(found))
    assert counts - {0} == {1, 2, 3}  # none: outside the image


@pytest.mark.parametrize("seed", range(8))
def test_the_surest_come_first_as_a_model_gives_them(seed: int) -> None:
    assert (with_noise(rectangles(4), 1.0, seed).score.diff() <= 0).all()


def test_a_class_is_confused_within_its_group_or_stays() -> None:
    for group in GROUPS:
        for name in group:
            taken = {confused_with(name, which) for which in np.linspace(0, 0.999, 50)}
            assert taken == set(group) - {name}
    assert confused_with("pedestrian", 0.5) == "pedestrian"


def test_a_mask_grows_about_the_middle_of_its_box_and_one_at_the_border_stays_inside() -> None:
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[10:30, 20:40] = True
    still = torch.zeros(2, 5, 5)
    assert torch.equal(warped(mask, 1.0, still), mask)
    rows, columns = warped(mask, 1.1, still).nonzero().unbind(dim=1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9, 30, 19, 40)
    shifted = warped(mask, 1.0, torch.ones(2, 5, 5) * torch.tensor([2.0, -3.0])[:, None, None])
    rows, columns = shifted.nonzero().unbind(dim=1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 27, 23, 42)
    corner = torch.zeros(40, 60, dtype=torch.bool)
    corner[:8, :8] = True
    assert warped(corner, 1.1, still).any()
    assert not warped(torch.zeros(4, 4, dtype=torch.bool), 1.1, still).any()


def test_errors_of_an_image_do_not_depend_on_the_others_and_nobody_invents_what_was_not_looked_at(world: Path) -> None:
    index = NuscenesIndex.open(world)
    perfect = SyntheticMasks(index)
    masks = NoisyMasks(perfect, index, 1.0)
    assert isinstance(masks, InstanceMasks)
    rows = [int(row) for row in index.sample_cameras[0]]
    first = [masks(row) for row in rows]
    again = NoisyMasks(perfect, index, 1.0)
    for row, found in reversed(list(zip(rows, first, strict=True))):
        assert_same(again(row), found)
    others = [NoisyMasks(perfect, index, 1.0, seed=1)(row) for row in rows]
    assert any(not torch.equal(a.score, b.score) for a, b in zip(first, others, strict=True))
    assert len({each.identity for each in (perfect, masks, NoisyMasks(perfect, index, 1.0, seed=1))}) == 3
    for row in rows:
        assert_same(NoisyMasks(perfect, index, 0.0)(row), perfect(row))
    between = replace(index, data_is_key=np.zeros_like(index.data_is_key))
    assert_same(NoisyMasks(perfect, between, 1.0)(rows[0]), perfect(rows[0]))


def test_noise_is_for_perfect_masks_and_at_most_all_of_it() -> None:
    with pytest.raises(ValueError, match="errors of their own"):
        VirtualPointsConfig(masks="maskrcnn", noise=0.5)
    with pytest.raises(ValueError, match="from 0 to 1"):
        VirtualPointsConfig(masks="synthetic", noise=1.5)
