"""Weights that are numbers."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from dualdistill.errors import DivergedError


def require_finite(state: Mapping[str, Tensor], path: Path, remedy: str = "take other weights") -> None:
    """Check the tensors of a weights file. Raises DivergedError for NaN or infinity; names the first tensor that has
    it."""
    bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise DivergedError(
            f"{path} holds numbers that are not finite, in {bad[0]} and {len(bad) - 1} others: its training diverged; "
            f"{remedy}."
        )
