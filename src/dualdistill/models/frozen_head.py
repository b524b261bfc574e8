"""A frozen CenterPoint head, computed only where a loss needs it: heat maps in every cell, codes in the cells of boxes.

Of the head's 36 branches, 30 regress codes that are needed in the cells of boxes alone. A code there depends on 3x3
hidden cells, these on 5x5 shared ones; computing no others gives the numbers (to rounding) and gradients of the whole
head for a sixth of the work. A frozen batch norm is folded into the convolution before it.
"""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dualdistill.models.center_head import REGRESSION, CenterHead
from dualdistill.ops.integers import places

_kept: WeakKeyDictionary[nn.Sequential, tuple[object, "_Folded"]] = WeakKeyDictionary()
_REACH = 2
"""Receptive field of two 3x3 convolutions, cells to each side."""


class _Folded(NamedTuple):
    weight: Float[Tensor, "out chan 3 3"]
    bias: Float[Tensor, "out"]

    def __call__(self, x: Tensor, padding: int = 1) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=padding).relu_()


def can_be_read(head: object) -> bool:
    """True if `read_head` computes the same as `head`: a CenterPoint head whose batch norms are frozen."""
    return isinstance(head, CenterHead) and not head.training and not any(p.requires_grad for p in head.parameters())


def read_head(
    head: CenterHead,
    neck: Float[Tensor, "batch chan y x"],
    index: Int[Tensor, "batch task slot"],
    used: Bool[Tensor, "batch task slot"],
) -> tuple[Float[Tensor, "batch klass y x"], Float[Tensor, "batch task slot code"]]:
    """Heat map logits of the head, and its codes in the cells `index` (row * width + column); 0 in slots not used."""
    shared = _folded(_sequential(head.shared))(neck)
    branches = [dict(task.named_children()) for task in head.tasks]
    heatmap = torch.cat([_heatmap(_sequential(branch["heatmap"]), shared) for branch in branches], dim=1)
    counts = used.sum(dim=(0, 2)).tolist()
    task, sample, slot = places(used.transpose(0, 1), sum(counts)).unbind(dim=1)
    windows, inside = _windows(shared, sample, index[sample, task, slot])
    codes = torch.cat(
        [
            _codes([_sequential(branch[name]) for name in REGRESSION], window, within)
            for branch, window, within in zip(branches, windows.split(counts), inside.split(counts), strict=True)
        ]
    )
    room = codes.new_zeros(*index.shape, sum(REGRESSION.values()))
    return heatmap, room.index_put((sample, task, slot), codes)


def _sequential(module: nn.Module) -> nn.Sequential:
    assert isinstance(module, nn.Sequential)
    return module


def _last(branch: nn.Sequential) -> nn.Conv2d:
    convolution = branch[1]
    assert isinstance(convolution, nn.Conv2d)
    return convolution


def _folded(block: nn.Sequential) -> _Folded:
    """A convolution without bias with the frozen batch norm that follows it; kept until one of them changes."""
    tensors = (*block.parameters(), *block.buffers())
    state = tuple((id(tensor), tensor._version, tensor.device, tensor.dtype) for tensor in tensors)
    kept = _kept.get(block)
    if kept is None or kept[0] != state:
        kept = _kept[block] = (state, _fold(block))
    return kept[1]


def _fold(block: nn.Sequential) -> _Folded:
    convolution, norm = block[0], block[1]
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return _Folded(convolution.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain)


def _heatmap(branch: nn.Sequential, shared: Float[Tensor, "batch chan y x"]) -> Float[Tensor, "batch _ y x"]:
    return _last(branch)(_folded(_sequential(branch[0]))(shared))


def _windows(
    shared: Float[Tensor, "batch chan y x"], sample: Int[Tensor, "boxes"], cell: Int[Tensor, "boxes"]
) -> tuple[Float[Tensor, "boxes chan 5 5"], Bool[Tensor, "boxes 1 3 3"]]:
    """The 5x5 cells about each cell, zero beyond the map, and which of the inner 3x3 lie on the map."""
    height, width = shared.shape[-2:]
    offset = torch.arange(-_REACH, _REACH + 1, device=cell.device)
    y, x = cell[:, None] // width + offset, cell[:, None] % width + offset  # boxes 5
    on_y, on_x = (y >= 0) & (y < height), (x >= 0) & (x < width)
    on_map = on_y[:, :, None] & on_x[:, None, :]  # boxes 5 5
    row = (sample[:, None, None] * height + y[:, :, None]) * width + x[:, None, :]
    rows = shared.permute(0, 2, 3, 1).flatten(0, 2)
    windows = rows.index_select(0, torch.where(on_map, row, 0).flatten()).unflatten(0, row.shape)
    windows = torch.where(on_map[..., None], windows, 0.0)
    return windows.permute(0, 3, 1, 2), on_map[:, None, 1:-1, 1:-1]


def _codes(
    branches: list[nn.Sequential], windows: Float[Tensor, "boxes chan 5 5"], inside: Bool[Tensor, "boxes 1 3 3"]
) -> Float[Tensor, "boxes code"]:
    """Output of the regression branches of one task in the middle of each window."""
    folded = [_folded(_sequential(branch[0])) for branch in branches]
    hidden = _Folded(torch.cat([f.weight for f in folded]), torch.cat([f.bias for f in folded]))(windows, padding=0)
    hidden = torch.where(inside, hidden, 0.0)  # the padding of the second convolution is zero
    parts = hidden.split([len(f.bias) for f in folded], dim=1)
    return torch.cat(
        [
            F.linear(part.flatten(1), last.weight.flatten(1), last.bias)
            for part, last in zip(parts, map(_last, branches), strict=True)
        ],
        dim=1,
    )
