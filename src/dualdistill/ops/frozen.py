"""A frozen module that its holder uses without owning it."""

from collections.abc import Callable

from torch import Tensor, nn


def freeze(module: nn.Module) -> nn.Module:
    """Evaluation mode and no gradient; batch norm keeps its running statistics
    (docs/methods/centerpoint.md#backbone-and-neck)."""
    return module.eval().requires_grad_(False)


class FrozenModule(nn.Module):
    """Holder of a frozen module that moves along to other devices but is not registered as a child.

    The module stays in evaluation mode under `train()`, no optimiser finds its parameters, and no state dict of the
    holder contains them.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self._held = (freeze(module),)

    @property
    def module(self) -> nn.Module:
        return self._held[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FrozenModule":
        self.module._apply(fn, recurse)
        return super()._apply(fn, recurse)
