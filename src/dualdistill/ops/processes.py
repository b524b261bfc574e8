"""Counts over all processes of a distributed training, for the gradients of one process with the whole batch.

Distributed training averages gradients over processes. A loss that is a sum divided by a count (of objects, of cells
with a depth) must then be divided by the *mean count of a process*: the average over P processes of sum_p / (N / P) is
the sum of all over N. The process's own count would weigh the objects of a sparse half of the batch more.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def number_of_processes() -> int:
    """Processes that train together; 1 where nothing is distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def mean_count(count: Tensor, *, at_least: float = 0.0, plus: float = 0.0) -> Tensor:
    """(count of all processes, at least `at_least`, plus `plus`) / processes, as float32: a loss's divisor.

    Every process must call it the same number of times, in the same order; with one process it is the count.
    """
    total, processes = count.detach().float(), number_of_processes()
    if processes > 1:
        total = total.clone()
        dist.all_reduce(total)
    return (total.clamp(min=at_least) + plus) / processes
