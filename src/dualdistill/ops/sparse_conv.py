"""Sparse convolution in plain PyTorch: the definition, fast enough to train with
(docs/methods/centerpoint.md#sparse-encoder).

A sparse tensor holds features at the occupied cells of a 3D grid; everywhere else it is zero. Both convolutions are
cross-correlations, as dense ones, of no bias:

- submanifold: output at the occupied cells only, which stay the same;
- strided: output wherever the window meets an occupied cell.

Each weight of the kernel has a list of the pairs of cells it connects; a convolution is one matrix product for each
weight, gathered from the inputs and added up at the outputs.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

Triple = tuple[int, int, int]
"""Along z, y and x."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Pairs of input and output cells that each weight of a kernel connects, z slowest and x fastest."""

    pairs: tuple[tuple[Int[Tensor, "_"], Int[Tensor, "_"]], ...]
    """(inputs, outputs) of each weight; their number differs from weight to weight."""
    outputs: int
    """Number of output cells."""


@dataclass(frozen=True, eq=False)
class Sites:
    """The occupied cells of a 3D grid for each sample of a batch."""

    cells: Int[Tensor, "sites 4"]
    """(sample, z, y, x), in ascending order, each once."""
    shape: Triple
    """Cells of the grid."""
    batch_size: int

    @classmethod
    def of_keys(cls, keys: Int[Tensor, "sites"], shape: Triple, batch_size: int) -> "Sites":
        """The cells of ascending flat indices into (sample, z, y, x)."""
        columns = []
        for length in reversed(shape):
            columns.append(keys % length)
            keys = keys // length
        return cls(cells=torch.stack([keys, *reversed(columns)], dim=1), shape=shape, batch_size=batch_size)

    def __len__(self) -> int:
        return len(self.cells)

    @cached_property
    def keys(self) -> Int[Tensor, "sites"]:
        """Flat index of each cell."""
        return flat_index(self.cells, self.shape)

    @cached_property
    def neighbours(self) -> Rules:
        """The rules of a 3x3x3 submanifold convolution; every such layer on these cells has the same ones."""
        every = torch.arange(len(self), device=self.cells.device)
        steps = (-1, 0, 1)
        shifts = list(product(steps, steps, steps))
        before = [self._shifted(shift) for shift in shifts[: len(shifts) // 2]]
        # Neighbourhood is symmetric: the second half is the first with inputs and outputs exchanged.
        after = [(here, there) for there, here in reversed(before)]
        return Rules((*before, (every, every), *after), len(self))

    def _shifted(self, shift: Triple) -> tuple[Tensor, Tensor]:
        """(there, here): pairs of occupied cells with there = here + shift."""
        moved = self.cells[:, 1:] + self.cells.new_tensor(shift)
        inside = ((moved >= 0) & (moved < moved.new_tensor(self.shape))).all(dim=1)
        here = inside.nonzero().squeeze(1)
        (dz, dy, dx), (_, height, width) = shift, self.shape
        wanted = self.keys.index_select(0, here) + (dz * height + dy) * width + dx
        found = torch.searchsorted(self.keys, wanted).clamp(max=max(0, len(self) - 1))
        met = self.keys.index_select(0, found) == wanted
        return found[met], here[met]

    def strided(self, kernel: Triple, stride: Triple, padding: Triple) -> tuple["Sites", Rules]:
        """The output cells of a strided convolution, and its rules."""
        shape = strided_shape(self.shape, kernel, stride, padding)
        sample, zyx = self.cells[:, :1], self.cells[:, 1:] + self.cells.new_tensor(padding)
        step, limit = zyx.new_tensor(stride), zyx.new_tensor(shape)
        inputs, answers = [], []
        for offset in product(*map(range, kernel)):
            start = zyx - zyx.new_tensor(offset)  # of the window, counted from the padded corner
            inside = ((start >= 0) & (start % step == 0) & (start // step < limit)).all(dim=1)
            here = inside.nonzero().squeeze(1)
            inputs.append(here)
            cells = torch.cat([sample, start // step], dim=1).index_select(0, here)
            answers.append(flat_index(cells, shape))
        keys, outputs = torch.unique(torch.cat(answers), return_inverse=True)
        pairs = tuple(zip(inputs, outputs.split([len(each) for each in inputs]), strict=True))
        return Sites.of_keys(keys, shape, self.batch_size), Rules(pairs, len(keys))


@dataclass(frozen=True, eq=False)
class SparseTensor:
    """Features at the occupied cells of a grid."""

    features: Float[Tensor, "sites chan"]
    sites: Sites

    def with_features(self, features: Float[Tensor, "sites _"]) -> "SparseTensor":
        return SparseTensor(features, self.sites)

    def submanifold(self, weight: Float[Tensor, "out 3 3 3 chan"]) -> "SparseTensor":
        """3x3x3 convolution with outputs at the occupied cells only."""
        return self.with_features(convolve(self.features, weight, self.sites.neighbours))

    def strided(self, weight: Float[Tensor, "out kz ky kx chan"], stride: Triple, padding: Triple) -> "SparseTensor":
        """Convolution with outputs wherever its window meets an occupied cell."""
        kernel = (weight.shape[1], weight.shape[2], weight.shape[3])
        sites, rules = self.sites.strided(kernel, stride, padding)
        return SparseTensor(convolve(self.features, weight, rules), sites)

    def dense(self) -> Float[Tensor, "batch chan z y x"]:
        """Dense map, zero where no cell is occupied."""
        return densify(self.features, self.sites.keys, self.sites.shape, self.sites.batch_size)


def densify(
    features: Float[Tensor, "sites chan"], keys: Int[Tensor, "sites"], shape: Triple, batch_size: int
) -> Float[Tensor, "batch chan z y x"]:
    """Dense map of the whole grid, zero where no cell is occupied. `keys`: flat index of each cell, in any order."""
    depth, height, width = shape
    flat = features.new_zeros(batch_size * depth * height * width, features.shape[1])
    flat = flat.index_copy(0, keys, features)
    return flat.view(batch_size, depth, height, width, -1).permute(0, 4, 1, 2, 3)


def convolve(
    features: Float[Tensor, "sites chan"], weight: Float[Tensor, "out kz ky kx chan"], rules: Rules
) -> Float[Tensor, "answers out"]:
    """Sparse convolution: the sum of weight times feature over the pairs of each output."""
    result = features.new_zeros(rules.outputs, len(weight))
    for (inputs, outputs), matrix in zip(rules.pairs, weight.flatten(1, 3).unbind(dim=1), strict=True):
        result = result.index_add_(0, outputs, features.index_select(0, inputs) @ matrix.mT)
    return result


def flat_index(cells: Int[Tensor, "sites 4"], shape: Triple) -> Int[Tensor, "sites"]:
    """Index of each (sample, z, y, x) in the flattened grid."""
    sample, z, y, x = cells.unbind(dim=1)
    return ((sample * shape[0] + z) * shape[1] + y) * shape[2] + x


def strided_shape(shape: Triple, kernel: Triple, stride: Triple, padding: Triple) -> Triple:
    """Shape of the output grid of a strided convolution."""
    z, y, x = (
        (length + 2 * pad - size) // step + 1
        for length, size, step, pad in zip(shape, kernel, stride, padding, strict=True)
    )
    return z, y, x
