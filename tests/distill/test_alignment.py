"""AOA and the alignments it is compared with."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from dualdistill.distill.align import (
    CrossAttentionAligner,
    UpsampleConv3,
    neck_aligner,
    no_weight_decay,
    stage_aligner,
)

LEVEL1 = ((256, 32, 32), (128, 128, 128))
LEVEL2 = ((512, 16, 16), (256, 64, 64))
SMALL = ((16, 4, 5), (8, 12, 15))


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("alignment", "level1", "level2"),
    [
        ("aoa", 2_002_944, 6_168_576),
        ("aoa-released", 2_002_944, 6_168_576),
        ("upsample-conv", 165_760, 659_200),
        ("orthogonal", 32_768 + 256, 131_072 + 512),
    ],
)
def test_parameter_counts_are_the_released_ones(alignment, level1, level2):
    assert count(stage_aligner(alignment, *LEVEL1)) == level1
    assert count(stage_aligner(alignment, *LEVEL2)) == level2


def test_the_map_before_the_head_takes_one_convolution():
    assert count(neck_aligner((256, 128, 128), (384, 128, 128))) == 98_688


def test_the_students_maps_take_the_shape_of_the_teachers_at_full_size():
    for student, teacher in (LEVEL1, LEVEL2):
        with torch.no_grad():
            assert stage_aligner("aoa", student, teacher)(torch.randn(1, *student)).shape == (1, *teacher)


@pytest.mark.parametrize("alignment", ["aoa", "aoa-released", "attention", "orthogonal", "upsample-conv"])
def test_any_alignment_serves_any_size(alignment):
    student, teacher = SMALL
    assert stage_aligner(alignment, student, teacher)(torch.randn(2, *student)).shape == (2, *teacher)


def test_keys_are_a_set():
    attention = CrossAttentionAligner(16, (4, 5))
    tokens = torch.randn(2, 20, 16)
    shuffled = tokens[:, torch.randperm(20)]
    assert_close(attention.attend(shuffled), attention.attend(tokens), rtol=1e-4, atol=1e-5)


def test_attention_weights_sum_to_one():
    attention = CrossAttentionAligner(16, (4, 5))
    with torch.no_grad():
        attention.to_value.weight.zero_()
    # All values alike, the keys not: what comes out is that value if and only if the weights sum to one.
    expected = attention.to_out(attention.to_value.bias).expand(1, 20, -1)
    assert_close(attention.attend(10 * torch.randn(1, 20, 16)), expected, rtol=0, atol=1e-6)


def test_queries_that_match_no_key_all_attend_alike():
    attention = CrossAttentionAligner(16, (4, 5))
    with torch.no_grad():
        attention.to_query.weight.zero_()
        attention.to_query.bias.zero_()
    tokens = torch.randn(2, 20, 16)
    mean_value = attention.to_out(attention.to_value(tokens).mean(dim=1, keepdim=True))
    assert_close(attention.attend(tokens), mean_value.expand(-1, 20, -1), rtol=0, atol=1e-6)


def test_samples_do_not_see_each_other():
    aoa = stage_aligner("aoa", *SMALL).eval()
    features = torch.randn(3, *SMALL[0])
    before = aoa(features)
    features[1] += 1
    after = aoa(features)
    assert_close(after[[0, 2]], before[[0, 2]], rtol=0, atol=1e-6)
    assert (after[1] - before[1]).abs().max() > 1e-3


def test_released_positions_start_at_zero_and_the_remedies_elsewhere():
    assert not CrossAttentionAligner(16, (4, 5)).position.any()
    noise = CrossAttentionAligner(16, (4, 5), position_init="normal").position
    assert 0 < noise.abs().max() < 0.1


def test_with_sine_positions_every_query_attends_to_its_own_cell_first():
    attention = CrossAttentionAligner(64, (8, 9), position_init="sine")
    tokens = attention.position.flatten(2).squeeze(0).mT
    query = attention.to_query(attention.query_linear(attention.query).relu()).unflatten(-1, (8, 8))
    key = attention.to_key(tokens).unflatten(-1, (8, 8))
    weights = torch.einsum("qhc,khc->hqk", query, key / 8**0.5).softmax(dim=-1).mean(dim=0)
    assert torch.equal(weights.argmax(dim=-1), torch.arange(72))
    assert weights.diagonal().mean() > 3 / 72


def test_a_residual_adds_the_keys_map_to_what_was_attended():
    with_residual = CrossAttentionAligner(16, (4, 5), residual=True).eval()
    without = CrossAttentionAligner(16, (4, 5)).eval()
    without.load_state_dict(with_residual.state_dict())
    features = torch.randn(2, 16, 4, 5)
    for aligner in (with_residual, without):
        with torch.no_grad():
            aligner.to_out.weight.zero_()
            aligner.to_out.bias.zero_()
    # Nothing attended: only the residual still tells two inputs apart.
    assert_close(without(features), without(-features))
    assert not torch.allclose(with_residual(features), with_residual(-features))


def test_upsampling_commutes_with_the_first_of_the_three_convolutions():
    adapter = UpsampleConv3(*SMALL)
    features = torch.randn(2, *SMALL[0])
    large = F.interpolate(features, (12, 15), mode="bilinear", align_corners=True)
    expected = adapter.rest(adapter.first(large))
    assert_close(adapter(features), expected, rtol=1e-4, atol=1e-5)
    assert expected.min() == 0


def test_norms_biases_tables_and_projector_are_spared_from_weight_decay_and_matrices_are_not():
    aoa = stage_aligner("aoa", *SMALL)
    spared = no_weight_decay(aoa)
    decayed = dict(aoa.named_parameters()).keys() - spared
    assert {
        "projector.raw",
        "projector.gain",
        "projector.bias",
        "attention.query",
        "attention.position",
    } <= spared
    assert {"attention.norm.weight", "attention.keys.1.weight", "attention.to_out.bias"} <= spared
    assert decayed == {
        "attention.keys.0.weight",
        "attention.query_linear.weight",
        "attention.to_query.weight",
        "attention.to_key.weight",
        "attention.to_value.weight",
        "attention.to_out.weight",
        "attention.feed_forward.0.weight",
        "attention.feed_forward.2.weight",
    }


def test_shapes_that_do_not_suit_are_refused():
    with pytest.raises(ValueError, match="8 attention heads cannot share 12 channels"):
        CrossAttentionAligner(12, (4, 4))
    with pytest.raises(ValueError, match="alignment enlarges maps"):
        stage_aligner("aoa", (16, 8, 8), (8, 4, 4))
    with pytest.raises(ValueError, match="must have one size"):
        neck_aligner((8, 16, 16), (8, 32, 32))
    with pytest.raises(ValueError, match="residual needs maps of one shape"):
        stage_aligner("attention", *SMALL, residual=True)
