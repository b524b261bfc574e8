"""Constants on the device, without waiting for it."""

from collections.abc import Sequence

import torch
from torch import Tensor


def constant(values: Sequence[float], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A small tensor of known numbers; `torch.tensor(values, device=...)` would synchronise with a GPU."""
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)
