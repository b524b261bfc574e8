"""A cache of pooling plans, by camera matrices."""

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
    """Pooling plans of the last cameras, found by exactly equal matrices.

    Useful wherever cameras and augmentation repeat: both frames of one sample, a fixed rig, a repeated batch.
    """

    def __init__(self, size: int = 4):
        """
        Args:
            size: Number of plans kept, those used last. One takes some 3 MB a sample at the published sizes.
        """
        self.size = size
        self._entries: list[_Entry] = []  # used last comes last

    def get(self, matrices: tuple[Tensor, ...], setting: Hashable, make: Callable[[], PoolPlan]) -> PoolPlan:
        """The plan for `matrices`, made if there is none.

        Args:
            matrices: All tensors the plan depends on, floats of one type.
            setting: Everything else it depends on.
            make: Function that makes the plan.
        """
        key = torch.cat([matrix.flatten() for matrix in matrices])
        setting = (setting, tuple(matrix.shape for matrix in matrices), key.dtype, key.device)
        alike = [entry for entry in self._entries if entry.setting == setting]
        if alike:  # compared at once: one synchronisation with the device
            equal = (torch.stack([entry.matrices for entry in alike]) == key).all(dim=1).tolist()
            for entry, found in zip(alike, equal, strict=True):
                if found:
                    self._entries = [other for other in self._entries if other is not entry] + [entry]
                    return entry.plan
        plan = make()
        self._entries = [*self._entries, _Entry(setting, key, plan)][-self.size :]
        return plan
