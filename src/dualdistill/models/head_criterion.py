"""Response distillation with a CenterPoint head: pseudo boxes and losses, as functions of its settings.

A frozen head is computed only where a loss needs it: heat maps in every cell, codes in the cells of boxes. Of its 36
branches, 30 regress codes that are needed in the cells of boxes alone. A code there depends on 3x3 hidden cells, these
on 5x5 shared ones; computing no others gives the numbers (to rounding) and gradients of the whole head for a sixth of
the work. A frozen batch norm is folded into the convolution before it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_decode import decode
from dualdistill.models.center_head import REGRESSION, CenterHead, CenterHeadConfig
from dualdistill.models.center_training import center_losses, center_targets, losses_in_cells
from dualdistill.ops.integers import places
from dualdistill.structures import Boxes, HeadOutput, Losses

_REACH = 2
"""Receptive field of two 3x3 convolutions, cells to each side."""


_Layer = Callable[..., Tensor]
"""Convolutions side by side, batch norms folded in, and ReLU: a function of a map and its padding."""

_kept: WeakKeyDictionary[CenterHead, tuple[object, tuple[_Layer, list[_Layer], list[_Layer]]]] = WeakKeyDictionary()


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
    shared_layer, heatmaps, codes_of_tasks = _folded(head)
    shared = shared_layer(neck)
    last = [task.get_submodule("heatmap.1") for task in head.tasks]
    heatmap = torch.cat([layer(hidden(shared)) for layer, hidden in zip(last, heatmaps, strict=True)], dim=1)
    counts = used.sum(dim=(0, 2)).tolist()
    task, sample, slot = places(used.transpose(0, 1), sum(counts)).unbind(dim=1)
    windows, inside = _windows(shared, sample, index[sample, task, slot])
    parts = zip(codes_of_tasks, windows.split(counts), inside.split(counts), strict=True)
    codes = torch.cat([read(*part) for read, *part in parts])
    room = codes.new_zeros(*index.shape, sum(REGRESSION.values()))
    return heatmap, room.index_put((sample, task, slot), codes)


def _folded(head: CenterHead) -> tuple[_Layer, list[_Layer], list[_Layer]]:
    """The head's shared layer, and for each task its heat map's hidden layer and what `_codes` makes; kept until one of
    its tensors changes."""
    tensors = (*head.parameters(), *head.buffers())
    state = tuple((id(tensor), tensor._version, tensor.device, tensor.dtype) for tensor in tensors)
    kept = _kept.get(head)
    if kept is None or kept[0] != state:
        codes = [_codes([task.get_submodule(name) for name in REGRESSION]) for task in head.tasks]
        heatmaps = [_fold(task.get_submodule("heatmap.0")) for task in head.tasks]
        kept = _kept[head] = (state, (_fold(head.shared), heatmaps, codes))
    return kept[1]


def _codes(branches: list[nn.Module]) -> _Layer:
    """Regression branches of a task as a function of the windows of boxes, to the codes in the middle of each. Their
    last layers are one matrix, a block for each."""
    weight = torch.block_diag(*(branch.get_parameter("1.weight").flatten(1) for branch in branches))
    bias = torch.cat([branch.get_parameter("1.bias") for branch in branches])
    hidden_layer = _fold(*(branch.get_submodule("0") for branch in branches))

    def read(
        windows: Float[Tensor, "boxes chan 5 5"], inside: Bool[Tensor, "boxes 1 3 3"]
    ) -> Float[Tensor, "boxes code"]:
        hidden = torch.where(inside, hidden_layer(windows, padding=0), 0.0)  # the second convolution pads with zeros
        return F.linear(hidden.flatten(1), weight, bias)

    return read


def _fold(*blocks: nn.Module) -> _Layer:
    """Convolutions without bias, each with the frozen batch norm that follows it."""
    weights, biases = [], []
    for block in blocks:
        norm = block.get_submodule("1")
        assert isinstance(norm, nn.BatchNorm2d)
        gain = norm.weight * (norm.get_buffer("running_var") + norm.eps).rsqrt()
        weights.append(block.get_parameter("0.weight") * gain[:, None, None, None])
        biases.append(norm.bias - norm.get_buffer("running_mean") * gain)
    weight, bias = torch.cat(weights), torch.cat(biases)
    return lambda x, padding=1: F.conv2d(x, weight, bias, padding=padding).relu_()


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


@dataclass(frozen=True, slots=True)
class CenterCriterion:
    """Decoding, target assignment and losses of a CenterPoint head, without its weights
    (docs/methods/dualdistill.md#response-distillation)."""

    grid: BevGrid
    config: CenterHeadConfig

    def pseudo_boxes(self, predictions: HeadOutput, temperature: float) -> tuple[Boxes, ...]:
        """Detections that serve as labels: decoded in float32, no gradient; `temperature` moves the score threshold."""
        with torch.no_grad():
            exact = HeadOutput(heatmap=predictions.heatmap.float(), regression=predictions.regression.float())
            return decode(exact, self.grid, self.config, temperature=temperature)

    def losses_of_features(
        self, head: Callable[[Tensor], HeadOutput], neck: Float[Tensor, "batch chan y x"], boxes: tuple[Boxes, ...]
    ) -> Losses:
        """Unweighted losses of the predictions of `head` on a map, with `boxes` as ground truth; a frozen CenterPoint
        head is computed only where needed."""
        targets = center_targets(boxes, self.grid, self.config)
        if isinstance(head, CenterHead) and can_be_read(head):
            heatmap, codes = read_head(head, neck, targets.index, targets.mask)
            return losses_in_cells(heatmap, codes, targets, self.config.task_of_class)
        return center_losses(head(neck), targets, self.config.task_of_class)
