import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dualdistill.ops.integers import group_sizes, stable_order


@given(st.integers(0, 2**31 - 1), st.sampled_from([1, 7, 1 << 16, (1 << 16) + 1, 1 << 24, 1 << 31]))
def test_it_is_the_stable_order_whatever_the_bound(seed, bound):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randint(bound, (200,), generator=generator)
    keys[50:100] = keys[:50]
    assert torch.equal(stable_order(keys, bound), keys.argsort(stable=True))
    assert torch.equal(stable_order(keys.int(), bound), keys.argsort(stable=True))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_nothing_is_in_order(dtype):
    assert stable_order(torch.zeros(0, dtype=dtype), 10).tolist() == []


@given(st.lists(st.integers(0, 6)))
def test_sizes_of_groups_count_their_members(groups):
    sizes = group_sizes(torch.tensor(groups, dtype=torch.long), 7)
    assert sizes.tolist() == [groups.count(group) for group in range(7)]
