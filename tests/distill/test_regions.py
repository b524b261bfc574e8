"""Regions, their weights, and the attention maps: who counts, and for how much."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor
from torch.testing import assert_close

from dualdistill.distill.mfd import Foreground, box_indices_of_batch, false_positives, foreground, split_regions
from dualdistill.distill.terms import channel_attention, compare_maps, spatial_attention
from dualdistill.geometry.boxes import transform_boxes
from dualdistill.geometry.grid import BevGrid
from dualdistill.geometry.transforms import rigid
from dualdistill.structures import Boxes
from tests.geometry.reference import box_index_map, rotation_about_z

GRID = BevGrid.around(51.2, 0.8)


def weighted_squares(
    error: Float[Tensor, "batch chan y x"],
    cell_weight: Float[Tensor, "batch 1 y x"],
    channel_weight: Float[Tensor, "batch chan 1 1"] | None = None,
) -> Float[Tensor, ""]:
    """Sum of weighted squares over channels and cells, mean over the batch. The definition of `compare_maps`."""
    squares = error.square()
    if channel_weight is not None:
        squares = squares * channel_weight
    return (squares.sum(dim=1, keepdim=True) * cell_weight).sum() / len(error)


def box(x: float, y: float, length: float, width: float, yaw: float = 0.0) -> Boxes:
    return Boxes(
        center=torch.tensor([[x, y, 0.0]]),
        size=torch.tensor([[length, width, 1.5]]),
        yaw=torch.tensor([yaw]),
        velocity=torch.zeros(1, 2),
        label=torch.zeros(1, dtype=torch.long),
    )


def joined(*parts: Boxes) -> Boxes:
    fields = ("center", "size", "yaw", "velocity", "label")
    return Boxes(**{name: torch.cat([getattr(part, name) for part in parts]) for name in fields})


@pytest.mark.parametrize(
    ("length", "width", "cell", "scale"),
    [(4.0, 2.0, 0.8, 0.28284), (0.7, 0.7, 0.8, 1.14286), (0.7, 0.7, 1.6, 2.28571)],
)
def test_an_objects_scale_is_one_over_the_root_of_its_area_in_cells(length, width, cell, scale):
    grid = BevGrid.around(51.2, cell)
    centre_of_a_cell = cell / 2
    objects = foreground((box(centre_of_a_cell, centre_of_a_cell, length, width),), grid)
    assert objects.mask.any()
    assert_close(objects.scale[objects.mask].unique(), torch.tensor([scale]), rtol=1e-5, atol=0)
    assert not objects.scale[~objects.mask].any()


def test_the_first_of_two_boxes_owns_a_cell_they_share():
    small, large = box(0.4, 0.4, 1.6, 1.6), box(0.4, 0.4, 8.0, 8.0)
    row = column = 64
    for first, second in ((small, large), (large, small)):
        scale = foreground((joined(first, second),), GRID).scale[0, 0, row, column]
        assert_close(scale, torch.tensor(0.8 / first.size[0, 0].item()))


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_turning_the_scene_turns_the_mask(quarter_turns):
    boxes = joined(box(10, 5, 4.6, 2.0, 0.3), box(-20, -12, 11.0, 2.9, 1.2), box(3.3, -30.1, 1.7, 0.7))
    turn = rigid(rotation_about_z(torch.tensor(quarter_turns * math.pi / 2)), torch.zeros(3))
    turned = foreground((transform_boxes(turn, boxes),), GRID)
    still = foreground((boxes,), GRID)
    # Rows grow with y: a counter-clockwise turn seen from above is a clockwise one of the array.
    expected = still.mask.rot90(-quarter_turns, dims=(2, 3))
    assert torch.equal(turned.mask, expected)
    assert_close(turned.scale, still.scale.rot90(-quarter_turns, dims=(2, 3)), rtol=1e-5, atol=0)


def test_the_released_corner_shifts_a_mask_by_half_a_cell():
    aligned_with_cells = box(0.8, 0.8, 1.6, 1.6)  # covers cells 64 and 65 each way
    centers = foreground((aligned_with_cells,), GRID, "center").mask[0, 0].nonzero()
    corners = foreground((box(0.8, 0.8, 1.5, 1.5),), GRID, "corner").mask[0, 0].nonzero()
    assert centers.float().mean(dim=0).tolist() == [64.5, 64.5]
    assert corners.tolist() == [[65, 65]]


def test_a_false_positive_is_seen_by_the_teacher_but_neither_near_nor_in_an_annotation():
    heatmap, logits = torch.zeros(1, 2, 1, 4), torch.full((1, 2, 1, 4), -5.0)
    objects = torch.tensor([[[[False, False, True, False]]]])
    logits[0, 1, 0, :3] = 0.0  # seen in the first three cells, by one class
    heatmap[0, 0, 0, 1] = 0.5  # the second is near an annotation, the third inside
    assert false_positives(heatmap, logits, objects).flatten().tolist() == [True, False, False, False]


@pytest.mark.parametrize("size", [4, 16])
def test_heat_maps_of_another_size_are_pooled_by_maximum_or_repeated(size):
    heatmap, logits = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), -9.0)
    logits[0, 1, 3, 6] = 9.0
    nobody = torch.zeros(1, 1, size, size, dtype=torch.bool)
    seen = false_positives(heatmap, logits, nobody)
    expected = {4: {(1, 3)}, 16: {(6, 12), (6, 13), (7, 12), (7, 13)}}[size]
    assert {tuple(cell) for cell in seen[0, 0].nonzero().tolist()} == expected


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), objects=st.floats(0, 1), seen=st.floats(0, 1))
def test_regions_are_disjoint_cover_the_map_and_share_out_one_each(seed, objects, seen):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(3, 1, 5, 6, generator=generator) < objects
    unfounded = (torch.rand(3, 1, 5, 6, generator=generator) < seen) & ~mask
    scale = torch.rand(3, 1, 5, 6, generator=generator) * mask
    regions = split_regions(Foreground(mask=mask, scale=scale), unfounded)
    weights = torch.stack([*regions.values()])
    assert weights.isfinite().all()
    covering = torch.stack([mask, regions["background"] > 0, regions["false_positive"] > 0])
    assert (covering.sum(dim=0) == 1).all()
    for region, cells in ((regions["background"], ~(mask | unfounded)), (regions["false_positive"], unfounded)):
        assert_close(region.sum(dim=(1, 2, 3)), cells.any(dim=(1, 2, 3), keepdim=True).flatten().float())


def test_object_cells_never_weigh_less_than_background_cells():
    mask = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    mask[..., 0, 0] = False
    huge = Foreground(mask=mask, scale=1e-6 * mask)
    assert_close(split_regions(huge)["foreground"], mask.float())  # one background cell: its share is 1


def test_spatial_attention_of_a_worked_example():
    features = torch.tensor([[[[0.0, 1], [2, 3]], [[0, 0], [0, 1]]]], requires_grad=True)
    attention = spatial_attention(features, 0.5)
    assert_close(attention.flatten(), torch.tensor([0.0609, 0.1655, 0.4498, 3.3238]), rtol=0, atol=1e-4)
    assert not attention.requires_grad


def test_attention_maps_average_one_and_are_flat_at_high_temperature():
    features = torch.randn(2, 6, 16, 16)
    assert_close(spatial_attention(features, 0.5).sum(dim=(1, 2, 3)), torch.full((2,), 256.0), rtol=1e-6, atol=0)
    assert_close(channel_attention(features, 0.5).sum(dim=(1, 2, 3)), torch.full((2,), 6.0), rtol=1e-6, atol=0)
    assert_close(spatial_attention(features, 1e9), torch.ones(2, 1, 16, 16))
    assert_close(channel_attention(features, 1e9), torch.ones(2, 6, 1, 1))


@given(seed=st.integers(0, 999), counts=st.lists(st.integers(0, 12), min_size=1, max_size=3))
@settings(max_examples=25)
@pytest.mark.parametrize("test_point", ["center", "corner"])
def test_owners_of_a_batch_are_those_of_its_samples_one_by_one(test_point, seed, counts):
    generator = torch.Generator().manual_seed(seed)
    grid = BevGrid.covering((-12.0, -9.6, 12.0, 9.6), (24, 30))
    samples = tuple(
        Boxes(
            center=40 * torch.rand(count, 3, generator=generator) - 20,  # some beyond the map
            size=9 * torch.rand(count, 3, generator=generator) + 0.1,
            yaw=7 * torch.rand(count, generator=generator),
            velocity=torch.zeros(count, 2),
            label=torch.zeros(count, dtype=torch.long),
        )
        for count in counts
    )
    before = 0
    for sample, owner in zip(samples, box_indices_of_batch(samples, grid, test_point), strict=True):
        want = box_index_map(grid, sample, test_point)
        assert torch.equal(owner, torch.where(want < 0, want, want + before))
        before += len(sample)


@pytest.mark.parametrize("ours", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("theirs", [torch.contiguous_format, torch.channels_last])
def test_maps_compared_at_once_cost_what_each_region_costs_alone(ours, theirs):
    teacher = torch.randn(2, 5, 7, 4).contiguous(memory_format=theirs)
    cells, channels = torch.rand(2, 3, 7, 4), torch.rand(2, 3, 5)
    start = torch.randn(2, 5, 7, 4)
    scale = torch.tensor([1.0, -2.0, 0.5])
    gradients = []
    for fused in (False, True):
        aligned = start.clone().contiguous(memory_format=ours).requires_grad_()
        if fused:
            losses, mean = compare_maps(aligned, teacher, cells, channels)
        else:
            terms = [
                weighted_squares(aligned - teacher, cells[:, r : r + 1], channels[:, r, :, None, None])
                for r in range(3)
            ]
            losses, mean = torch.stack(terms), aligned.mean(1, keepdim=True)
        ((losses * scale).sum() + mean.sin().sum()).backward()
        gradients.append((losses, mean, aligned.grad))
    for want, came in zip(*gradients, strict=True):
        assert_close(came, want, rtol=1e-5, atol=1e-6)
