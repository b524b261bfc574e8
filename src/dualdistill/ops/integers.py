"""Small integers and constants, sorted, counted and placed without waiting for the device."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor


def stable_order(keys: Int[Tensor, "keys"], bound: int) -> Int[Tensor, "keys"]:
    """`keys.argsort(stable=True)` of keys that are at least 0 and less than `bound` (at most 2³²).

    On a CPU, PyTorch sorts 64-bit pairs by comparison; NumPy counts 16-bit digits, in a twentieth of the time.
    """
    if keys.device.type != "cpu":
        return keys.argsort(stable=True)
    numbers = keys.numpy()
    order = np.argsort(numbers.astype(np.uint16), kind="stable")  # the conversion keeps the low digit
    if bound > 1 << 16:
        order = order[np.argsort((numbers >> 16).astype(np.uint16)[order], kind="stable")]
    return torch.from_numpy(order)


def group_sizes(group: Int[Tensor, "members"], groups: int) -> Int[Tensor, "groups"]:
    """Number of members of each group, int64: `bincount`, which would synchronise with a GPU, without doing so."""
    if group.device.type == "cpu":
        return torch.bincount(group, minlength=groups)
    return torch.zeros(groups, dtype=torch.long, device=group.device).index_add_(
        0, group, torch.ones_like(group, dtype=torch.long)
    )


def places(mask: Bool[Tensor, "*shape"], count: int) -> Int[Tensor, "count axes"]:
    """`mask.nonzero()` where the number of true entries is known: the host of a GPU does not wait for it."""
    return mask.nonzero() if mask.device.type == "cpu" else torch.nonzero_static(mask, size=count)


def constant(values: Sequence[float], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A small tensor of known numbers; `torch.tensor(values, device=...)` would synchronise with a GPU."""
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)
