"""Pooling plans of the cameras met last."""

from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from dualdistill.ops.bev_pool import PoolPlan


class _Entry(NamedTuple):
    setting: Hashable
    matrices: Tensor
    plan: PoolPlan


class PlanCache:
    """Finds a plan again by the very matrices it was made of: what differs in the last bit gets a plan of its own.

    Pays wherever cameras and augmentation stay: both frames of one sample, a rig that does not move, a batch met again.
    """

    def __init__(self, size: int = 4):
        """
        Args:
            size: Plans kept; those used last. One takes some 3 MB a sample at the published sizes.
        """
        self.size = size
        self._entries: list[_Entry] = []  # used last comes last

    def get(self, matrices: tuple[Tensor, ...], setting: Hashable, make: Callable[[], PoolPlan]) -> PoolPlan:
        """The plan for `matrices`, made if there is none.

        Args:
            matrices: All tensors the plan depends on, floats of one type.
            setting: Whatever else it depends on.
            make: Makes it.
        """
        key = torch.cat([matrix.flatten() for matrix in matrices])
        setting = (setting, tuple(matrix.shape for matrix in matrices), key.dtype, key.device)
        alike = [entry for entry in self._entries if entry.setting == setting]
        if alike:  # compared at once, so that a device is waited for once
            equal = (torch.stack([entry.matrices for entry in alike]) == key).all(dim=1).tolist()
            for entry, found in zip(alike, equal, strict=True):
                if found:
                    self._entries = [other for other in self._entries if other is not entry] + [entry]
                    return entry.plan
        plan = make()
        self._entries = [*self._entries, _Entry(setting, key, plan)][-self.size :]
        return plan
