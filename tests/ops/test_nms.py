import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dualdistill.ops.nms import circle_nms, close_pairs, greedy, rotated_nms
from dualdistill.ops.rotated_iou import rotated_iou

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31 - 1)


def scene(seed: int, count: int = 40) -> tuple[Tensor, Tensor]:
    """A crowd of rectangles and their scores, some of them equal."""
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([[-10, -10, 0.5, 0.5, -3], [10, 10, 6, 3, 3.0]])
    rectangles = low + torch.rand(count, 5, generator=generator) * (high - low)
    return rectangles, torch.randint(1, 30, (count,), generator=generator) / 30


def one_by_one(conflict: Tensor, order: Tensor) -> list[int]:
    """Greedy suppression as it is told: the best first, each strikes out those it conflicts with."""
    kept: list[int] = []
    for candidate in order.tolist():
        if not any(conflict[better, candidate] for better in kept):
            kept.append(candidate)
    return kept


@quick
@given(seeds, st.integers(0, 90), st.floats(0, 0.3))
def test_rounds_keep_what_the_sequential_loop_keeps(seed, count, density):
    generator = torch.Generator().manual_seed(seed)
    conflict = (torch.rand(count, count, generator=generator) < density).triu(diagonal=1)
    better, worse = conflict.nonzero().unbind(dim=1)
    expected = one_by_one(conflict, torch.arange(count))
    assert greedy(better, worse, count).nonzero().flatten().tolist() == expected


def test_in_a_chain_every_other_box_survives():
    better = torch.arange(99)
    assert greedy(better, better + 1, 100).tolist() == [index % 2 == 0 for index in range(100)]


@quick
@given(seeds, st.integers(0, 60))
def test_pairs_are_the_same_group_by_group_and_padded(seed, count):
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randn(2, count, generator=generator)
    group = torch.randint(0, 9, (count,), generator=generator).sort().values

    def near(a: Tensor, b: Tensor) -> Tensor:
        return (a[0] - b[0]).abs() + (a[1] - b[1]).abs() < 1

    close = near(columns[..., :, None], columns[..., None, :]) & (group[:, None] == group)
    expected = close.triu(diagonal=1).nonzero().tolist()
    for padded in (False, True):
        assert torch.stack(close_pairs(columns, group, near, padded=padded), dim=1).tolist() == expected


@quick
@given(seeds, st.sampled_from(["circle", "rotated", "scale"]))
def test_groups_are_suppressed_each_by_itself(seed, kind):
    rectangles, scores = scene(seed, count=90)
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(0, 4, (90,), generator=generator)
    threshold = torch.tensor([0.05, 0.3, 0.1, 0.9])[group]
    factors = 0.5 + torch.rand(90, generator=generator)

    def suppressed(index: Tensor, own: Tensor | None) -> Tensor:
        boxes, score, limit = rectangles[index], scores[index], threshold[index]
        if kind == "circle":
            return index[circle_nms(boxes[:, :2], score, 40 * limit, 9, own)]
        if kind == "rotated":
            return index[rotated_nms(boxes, score, limit, 20, 9, own)]
        return index[rotated_nms(boxes, score, limit, 20, 9, own, factors[index])]

    apart = [suppressed((group == each).nonzero().squeeze(1), None) for each in range(4)]
    assert suppressed(torch.arange(90), group).tolist() == torch.cat(apart).tolist()


@quick
@given(seeds, st.sampled_from([0.0, 0.5, 4.0, 50.0]))
def test_circle_nms_is_the_loop_over_squared_distances(seed, squared_radius):
    rectangles, scores = scene(seed)
    x, y = rectangles[:, 0], rectangles[:, 1]
    near = (x[:, None] - x).square() + (y[:, None] - y).square() <= squared_radius
    order = scores.argsort(descending=True, stable=True)
    assert circle_nms(rectangles[:, :2], scores, squared_radius, 1000).tolist() == one_by_one(near, order)


@quick
@given(seeds, st.sampled_from([0.0, 0.05, 0.2, 0.9]))
def test_rotated_nms_is_the_loop_over_overlaps(seed, threshold):
    rectangles, scores = scene(seed)
    order = scores.argsort(descending=True, stable=True)
    expected = one_by_one(rotated_iou(rectangles, rectangles) > threshold, order[:30])[:9]
    assert rotated_nms(rectangles, scores, threshold, pre_max=30, post_max=9).tolist() == expected


@quick
@given(seeds)
def test_suppressing_the_survivors_again_changes_nothing(seed):
    rectangles, scores = scene(seed)
    kept = rotated_nms(rectangles, scores, 0.1, 1000, 1000)
    again = rotated_nms(rectangles[kept], scores[kept], 0.1, 1000, 1000)
    assert again.tolist() == list(range(len(kept)))


@quick
@given(seeds)
def test_the_order_of_the_input_does_not_matter(seed):
    rectangles, _ = scene(seed)
    scores = torch.randperm(len(rectangles), generator=torch.Generator().manual_seed(seed)) / 100
    shuffle = torch.randperm(len(rectangles), generator=torch.Generator().manual_seed(seed + 1))
    shuffled = rotated_nms(rectangles[shuffle], scores[shuffle], 0.1, 1000, 1000)
    assert shuffle[shuffled].tolist() == rotated_nms(rectangles, scores, 0.1, 1000, 1000).tolist()


def test_the_worked_example_of_circle_nms():
    centers = torch.tensor([[0.0, 0], [1.9, 0], [2.1, 0]])  # docs/methods/centerpoint.md#worked-values
    assert circle_nms(centers, torch.tensor([0.9, 0.8, 0.7]), 4.0, 83).tolist() == [0, 2]


def test_a_centre_on_the_circle_is_suppressed():
    centers = torch.tensor([[0.0, 0], [2.0, 0]])
    assert circle_nms(centers, torch.tensor([0.1, 0.2]), 4.0, 83).tolist() == [1]


def test_of_equal_scores_the_first_box_wins():
    same = torch.tensor([[0.0, 0, 4, 2, 0]]).expand(3, 5)
    assert rotated_nms(same, torch.ones(3), 0.2, 1000, 83).tolist() == [0]


@quick
@given(seeds)
def test_scale_suppression_with_factor_one_changes_nothing(seed):
    rectangles, scores = scene(seed)
    plain = rotated_nms(rectangles, scores, 0.2, 30, 9)
    assert rotated_nms(rectangles, scores, 0.2, 30, 9, factors=torch.ones(40)).tolist() == plain.tolist()


def test_enlarged_pedestrians_suppress_neighbours_and_shrunk_buses_spare_theirs():
    pedestrians = torch.tensor([[0.0, 0, 0.7, 0.7, 0], [1.0, 0, 0.7, 0.7, 0]])
    buses = torch.tensor([[0.0, 0, 11, 3, 0], [7.0, 0, 11, 3, 0]])
    scores = torch.tensor([0.9, 0.8])
    assert len(rotated_nms(pedestrians, scores, 0.2, 1000, 83)) == 2
    assert rotated_nms(pedestrians, scores, 0.2, 1000, 83, factors=torch.full((2,), 4.5)).tolist() == [0]
    assert rotated_nms(buses, scores, 0.2, 1000, 83).tolist() == [0]
    assert len(rotated_nms(buses, scores, 0.2, 1000, 83, factors=torch.full((2,), 0.4))) == 2


def test_nobody_in_nobody_out():
    none = torch.zeros(0)
    assert circle_nms(torch.zeros(0, 2), none, 4.0, 83).tolist() == []
    assert rotated_nms(torch.zeros(0, 5), none, 0.2, 1000, 83).tolist() == []
    assert rotated_nms(torch.zeros(0, 5), none, 0.2, 1000, 83, factors=none).tolist() == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_centres_of_any_type_and_with_gradients_are_suppressed(dtype):
    centers = torch.tensor([[0.0, 0], [1.0, 0], [3.5, 0]], dtype=dtype, requires_grad=True)
    assert circle_nms(centers, torch.tensor([0.9, 0.8, 0.7]), 4.0, 83).tolist() == [0, 2]
