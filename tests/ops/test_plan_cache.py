import pytest
import torch
from torch import Tensor

from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.bev_pool import PlanCache, PoolPlan, make_pool_plan


class Maker:
    """Counts how often a plan had to be made."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> PoolPlan:
        self.made += 1
        return make_pool_plan(torch.rand(1, 2, 3, 4, 5, 3), BevGrid.around(4.0, 1.0), (-1.0, 1.0))


def matrices(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, 3, generator=generator), torch.rand(2, 4, 4, generator=generator)


def test_equal_matrices_find_the_plan_made_of_them():
    cache, make = PlanCache(), Maker()
    first = cache.get(matrices(0), "setting", make)
    assert cache.get(matrices(0), "setting", make) is first
    assert make.made == 1


def test_the_last_bit_tells_two_calibrations_apart():
    cache, make = PlanCache(), Maker()
    intrinsics, pose = matrices(0)
    first = cache.get((intrinsics, pose), None, make)
    moved = pose.clone()
    moved[1, 2, 3] = torch.nextafter(moved[1, 2, 3], torch.tensor(2.0))
    assert cache.get((intrinsics, moved), None, make) is not first
    assert make.made == 2


@pytest.mark.parametrize(
    ("other", "setting"),
    [(lambda m: m, "other"), (lambda m: tuple(x.double() for x in m), "own"), (lambda m: m[::-1], "own")],
    ids=["setting", "type", "order"],
)
def test_what_else_a_plan_depends_on_counts_too(other, setting):
    cache, make = PlanCache(), Maker()
    cache.get(matrices(0), "own", make)
    cache.get(other(matrices(0)), setting, make)
    assert make.made == 2


def test_changing_a_matrix_afterwards_does_not_change_the_key():
    cache, make = PlanCache(), Maker()
    own = matrices(0)
    cache.get(own, None, make)
    own[0].zero_()
    cache.get(own, None, make)
    assert make.made == 2
    cache.get(matrices(0), None, make)
    assert make.made == 2


def test_the_plan_used_longest_ago_makes_room():
    cache, make = PlanCache(size=2), Maker()
    for seed in (0, 1, 0, 2):  # 1 goes
        cache.get(matrices(seed), None, make)
    assert make.made == 3
    cache.get(matrices(0), None, make)
    assert make.made == 3
    cache.get(matrices(1), None, make)
    assert make.made == 4


def test_a_matrix_that_is_not_a_number_never_matches():
    cache, make = PlanCache(), Maker()
    for _ in range(2):
        cache.get((torch.full((3, 3), torch.nan),), None, make)
    assert make.made == 2
