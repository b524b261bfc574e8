"""Which samples a training sees."""

from hypothesis import given
from hypothesis import strategies as st

from dualdistill.train.data import StepSampler

SIZES = st.integers(1, 23)


@given(length=SIZES, batch_size=st.integers(1, 7), cut=st.integers(0, 12), seed=st.integers(0, 99))
def test_a_resumed_training_sees_what_an_unbroken_one_would(length, batch_size, cut, seed):
    whole = list(StepSampler(length, batch_size, first=0, last=12, seed=seed))
    rest = list(StepSampler(length, batch_size, first=cut, last=12, seed=seed))
    assert whole[cut:] == rest


@given(length=SIZES, batch_size=st.integers(1, 7), seed=st.integers(0, 99))
def test_every_epoch_is_a_permutation(length, batch_size, seed):
    batches = StepSampler(length, batch_size, first=0, last=-(-3 * length // batch_size), seed=seed)
    pairs = [pair for batch in batches for pair in batch][: 3 * length]
    for epoch in range(3):
        assert sorted(pairs[epoch * length : (epoch + 1) * length]) == [(epoch, i) for i in range(length)]


@given(length=SIZES, batch_size=st.integers(1, 5), seed=st.integers(0, 99))
def test_two_processes_together_see_what_one_with_double_batches_sees(length, batch_size, seed):
    def batches(size, rank, world):
        return list(StepSampler(length, size, first=0, last=6, seed=seed, rank=rank, world=world))

    one = batches(2 * batch_size, 0, 1)
    two = [a + b for a, b in zip(batches(batch_size, 0, 2), batches(batch_size, 1, 2), strict=True)]
    assert one == two


def test_another_seed_is_another_order():
    orders = [list(StepSampler(50, 50, first=0, last=1, seed=seed)) for seed in (0, 1)]
    assert orders[0] != orders[1]
