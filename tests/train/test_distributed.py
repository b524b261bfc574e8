"""Two processes with half a batch each learn what one process with the whole batch does."""

from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import multiprocessing
from torch.testing import assert_close

from dualdistill.data.collate import collate
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.ops.processes import mean_count
from dualdistill.recipes.catalogue import find
from dualdistill.recipes.experiment import override
from dualdistill.structures import Batch, weighted_sum
from dualdistill.train.step import training_losses
from dualdistill.workflows.build import build_distillation
from dualdistill.workflows.stand_in import stand_in
from tests.workflows.conftest import TINY_STUDENT, TINY_TEACHER

BOXES = (20, 3)
"""Of the two samples: far from equally many, or the normalisers of losses would not matter."""


class Step(torch.nn.Module):
    """The loss of a distilled step. Batch norms are frozen: those of one process cannot know of another's samples."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        # A teacher unsure enough to have pseudo boxes without training.
        sets = [*TINY_STUDENT, *TINY_TEACHER, "teacher.head.heatmap_bias=-0.25"]
        experiment = override(find("synthetic/dualdistill-centerpoint").build(), sets)
        self.samples = [
            stand_in(experiment.data, boxes=boxes, points=2000, seed=seed) for seed, boxes in enumerate(BOXES)
        ]
        self.student = BevDepth(experiment.student)
        self.distillation = build_distillation(
            experiment, self.student, CenterPoint(experiment.teacher), self.samples[0]
        )
        self.eval()

    def forward(self, batch: Batch) -> torch.Tensor:
        losses = training_losses(self.student, self.distillation, batch)
        return weighted_sum(losses, self.student.weights | self.distillation.weights)


def gradients(step: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in step.named_parameters() if parameter.grad is not None}


def learn_a_share(rank: int, folder: str) -> None:
    """One of two processes: its sample, gradients averaged by DistributedDataParallel."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    step = Step()
    replica = torch.nn.parallel.DistributedDataParallel(step)  # by name: one that nothing holds reduces nothing
    replica(step.samples[rank]).backward()
    count = mean_count(torch.tensor([2.0, 0.0]) * (rank + 1), at_least=1, plus=0.5)
    if rank == 0:
        save_file(gradients(step) | {"count": count}, Path(folder) / "gradients.safetensors")
    dist.destroy_process_group()


def test_gradients_of_two_processes_are_those_of_one_with_the_doubled_batch(tmp_path):
    multiprocessing.spawn(learn_a_share, args=(str(tmp_path),), nprocs=2)
    came = load_file(tmp_path / "gradients.safetensors")
    assert_close(came.pop("count"), torch.tensor([3.25, 0.75]))  # (2 + 4 + 0.5) / 2 and (1 + 0.5) / 2
    step = Step()
    step(collate(step.samples)).backward()
    want = gradients(step)
    assert came.keys() == want.keys()
    for name, gradient in want.items():
        scale = gradient.abs().max().item()
        assert_close(came[name], gradient, rtol=1e-3, atol=1e-4 * scale + 1e-7, msg=lambda text, n=name: f"{n}: {text}")


def test_averaging_losses_of_unequal_halves_is_not_enough():
    step = Step()
    whole = step(collate(step.samples)).item()
    halves = sum(step(sample).item() for sample in step.samples) / 2
    assert abs(halves - whole) > 1e-3 * abs(whole)


def test_a_process_alone_counts_for_itself():
    assert mean_count(torch.tensor(0), at_least=1) == 1
    assert mean_count(torch.tensor(7), plus=0.5) == 7.5
