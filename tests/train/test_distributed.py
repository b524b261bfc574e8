"""Two processes with half a batch each learn what one process with the whole batch does.

All of it in float64, parts that are float32 in every precision included: what differs is then no rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import multiprocessing
from torch.testing import assert_close

from dualdistill.data.collate import collate
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.plain import override
from dualdistill.ops.processes import mean_count
from dualdistill.recipes.catalogue import find
from dualdistill.structures import Batch, InstanceMap, weighted_sum
from dualdistill.train.assemble import assemble
from dualdistill.train.data import random_batch
from tests.commands.conftest import TINY_STUDENT, TINY_TEACHER

BOXES = (20, 3)
"""Boxes of the two samples: far from equally many, or the normalisers of losses would not matter."""
SEEN = (0.6, 0.1)
"""Shares of image cells that show an object."""
TOLERANCE = 1e-12
"""Largest difference of the whole gradient, relative to its norm."""
METHODS = (
    "student",
    "teacher-centerpoint",
    "dualdistill-centerpoint",
    "dualdistill-centerpoint-relative",
    "distillbev-centerpoint",
    "tigbev-centerpoint",
    "x3kd-full-centerpoint",
    "labeldistill-centerpoint",
    "labeldistill-centerpoint-soft-response",
)


class Step(torch.nn.Module):
    """The loss of a distilled step. Batch norms are frozen: those of one process cannot know of another's samples."""

    def __init__(self, method: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        # A teacher unsure enough to have pseudo boxes without training.
        experiment = find(f"synthetic/{method}").build()
        sets = list(TINY_STUDENT if experiment.student else ())
        if experiment.teacher is not None:
            sets += [*TINY_TEACHER, "teacher.head.heatmap_bias=-0.25"]
        experiment = override(experiment, sets)
        self.samples = [_sample(experiment, number) for number in range(len(BOXES))]
        self.parts = assemble(experiment)
        self.eval().double()
        self.samples = [_doubled(sample) for sample in self.samples]

    def forward(self, batch: Batch) -> torch.Tensor:
        with in_float64():
            return weighted_sum(self.parts(batch), self.parts.weights)


@contextmanager
def in_float64() -> Iterator[None]:
    """Context in which `Tensor.float` gives float64, and new tensors are float64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def _sample(experiment: Experiment, number: int) -> Batch:
    sample = random_batch(experiment.data, boxes=BOXES[number], points=2000, seed=number)
    rows, columns = (side // experiment.data.depth_stride for side in experiment.data.image_size)
    seen = torch.rand(1, 6, rows, columns, generator=torch.Generator().manual_seed(number)) < SEEN[number]
    if sample.depth_instance is not None:
        sample = replace(sample, depth_instance=torch.where(seen, 0, -1))
    if sample.instances is not None:
        klass = torch.where(seen, sample.instances.klass, -1)
        sample = replace(sample, instances=InstanceMap(klass=klass, instance=torch.where(seen, 0, -1)))
    return sample


def _doubled(record):
    """A record in float64."""
    if isinstance(record, torch.Tensor):
        return record.double() if record.is_floating_point() else record
    return record._each(_doubled)


def gradients(step: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.contiguous() for name, parameter in step.named_parameters() if parameter.grad is not None
    }


def learn_a_share(rank: int, folder: str) -> None:
    """One of two processes: its sample of each method, gradients averaged by DistributedDataParallel."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for method in METHODS:
        step = Step(method)
        replica = torch.nn.parallel.DistributedDataParallel(step)  # by name: one that nothing holds reduces nothing
        replica(step.samples[rank]).backward()
        if rank == 0:
            save_file(gradients(step), Path(folder) / f"{method}.safetensors")
    count = mean_count(torch.tensor([2.0, 0.0]) * (rank + 1), at_least=1, plus=0.5)
    if rank == 0:
        save_file({"count": count}, Path(folder) / "count.safetensors")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    """What two processes with a sample each found."""
    folder = tmp_path_factory.mktemp("shares")
    multiprocessing.spawn(learn_a_share, args=(str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_two_processes_are_those_of_one_with_the_doubled_batch(shares, method):
    step = Step(method)
    step(collate(step.samples)).backward()
    came, want = load_file(shares / f"{method}.safetensors"), gradients(step)
    assert came.keys() == want.keys()
    apart = sum(float((came[name] - gradient).square().sum()) for name, gradient in want.items())
    whole = sum(float(gradient.square().sum()) for gradient in want.values())
    assert apart**0.5 <= TOLERANCE * whole**0.5
    for name, gradient in want.items():
        scale = gradient.abs().max().item()
        assert_close(came[name], gradient, rtol=0, atol=1e-9 * scale + 1e-14, msg=lambda text, n=name: f"{n}: {text}")


def test_a_count_is_the_mean_over_processes(shares):
    # (2 + 4 + 0.5) / 2 and (1 + 0.5) / 2
    assert_close(load_file(shares / "count.safetensors")["count"], torch.tensor([3.25, 0.75]))


@pytest.mark.parametrize("method", METHODS)
def test_averaging_losses_of_unequal_halves_is_not_enough(method):
    step = Step(method)
    whole = step(collate(step.samples)).item()
    halves = sum(step(sample).item() for sample in step.samples) / 2
    assert abs(halves - whole) > 1e-3 * abs(whole)


def test_a_process_alone_counts_for_itself():
    assert mean_count(torch.tensor(0), at_least=1) == 1
    assert mean_count(torch.tensor(7), plus=0.5) == 7.5
