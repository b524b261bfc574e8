"""Sparse convolution by spconv, the optional fast twin of `sparse_conv` (extra "voxel").

spconv's wheel without CUDA computes on the CPU, in its "native" algorithm only; its backward requests the current CUDA
stream even so, which is 0 here (spconv 2.3.8). Its sums have a data race: the threads of `scatter_add` share the two
pointers to source and target, so that a cell now and then receives another's share. It runs in one thread here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from dualdistill.errors import UserError
from dualdistill.ops.sparse_conv import Sites, Triple, densify, flat_index
from dualdistill.ops.threads import one_thread

MISSING = (
    "Voxels are convolved by spconv, which is not installed. Install it with `pip install 'dualdistill[voxel]'` (on a "
    "GPU: the spconv-cu… wheel of your CUDA), or compute with the plain PyTorch form, with the same result: "
    "--set teacher.voxel.backend=reference."
)


@cache
def spconv() -> ModuleType:
    """spconv.pytorch, made fit for a CPU: its backward passes run there, and its sums are right. Raises UserError if it
    is not installed."""
    try:
        import spconv.pytorch as library
        from spconv.pytorch import ops
    except ImportError as error:
        raise UserError(f"{MISSING} ({error})") from None
    if not torch.cuda.is_available():
        ops.get_current_stream = lambda: 0
    for sums in ("indice_conv", "indice_conv_backward"):
        setattr(ops, sums, _undisturbed(getattr(ops, sums)))
    return library


def _undisturbed(sums: Callable[..., Any]) -> Callable[..., Any]:
    """`sums` restricted to one thread where its features are on a CPU."""

    @wraps(sums)
    def alone(features: Tensor, *args: Any, **options: Any) -> Any:
        if features.is_cuda:
            return sums(features, *args, **options)
        with one_thread():
            return sums(features, *args, **options)

    return alone


@dataclass(frozen=True, eq=False)
class SpconvTensor:
    """Features at the occupied cells of a grid, held by spconv."""

    held: Any
    """A spconv.SparseConvTensor."""

    @classmethod
    def of(cls, features: Float[Tensor, "sites chan"], sites: Sites) -> "SpconvTensor":
        cells = sites.cells.int().contiguous()
        return cls(spconv().SparseConvTensor(features, cells, list(sites.shape), sites.batch_size))

    @property
    def features(self) -> Float[Tensor, "sites chan"]:
        return self.held.features

    def with_features(self, features: Float[Tensor, "sites _"]) -> "SpconvTensor":
        return SpconvTensor(self.held.replace_feature(features))

    def submanifold(self, weight: Float[Tensor, "out 3 3 3 chan"]) -> "SpconvTensor":
        """3x3x3 convolution with outputs at the occupied cells only."""
        # Layers on the same cells share their rules under this name; each resolution is another shape.
        return self._through(weight, "SubMConv3d", padding=1, indice_key=f"submanifold {self.held.spatial_shape}")

    def strided(self, weight: Float[Tensor, "out kz ky kx chan"], stride: Triple, padding: Triple) -> "SpconvTensor":
        """Convolution with outputs wherever its window meets an occupied cell."""
        return self._through(weight, "SparseConv3d", stride=stride, padding=padding)

    def dense(self) -> Float[Tensor, "batch chan z y x"]:
        """Dense map, zero where no cell is occupied."""
        z, y, x = self.held.spatial_shape
        # spconv's own indexes with a list, whose meaning in PyTorch is about to change.
        keys = flat_index(self.held.indices.long(), (z, y, x))
        return densify(self.features, keys, (z, y, x), self.held.batch_size)

    def _through(self, weight: Tensor, kind: str, **options: Any) -> "SpconvTensor":
        algorithm = {} if weight.is_cuda else {"algo": spconv().ConvAlgo.Native}
        with torch.device("meta"):  # the layer's own weight is never used
            layer = getattr(spconv(), kind)(
                weight.shape[4], weight.shape[0], tuple(weight.shape[1:4]), bias=False, **options, **algorithm
            )
        layer.train(torch.is_grad_enabled())
        return SpconvTensor(functional_call(layer, {"weight": weight}, (self.held,)))
