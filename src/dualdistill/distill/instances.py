"""Instance segmentation of image features: the class of each cell and the offset to its object's centre.

For X3KD-style distillation across tasks (docs/methods/x3kd.md#instance-segmentation). Differs from the description, a
two-stage network with proposals and masks, in that it is a single stage, as far as known without precedent in that
method: class and offset to the object's centre separate instances without boxes.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dualdistill.distill.terms import balanced_mean
from dualdistill.ops.processes import mean_count
from dualdistill.structures import CLASSES, InstanceMap, Losses


class InstanceHead(nn.Module):
    """Segmentation head on image features; used in training only."""

    def __init__(self, in_channels: int, channels: int = 256, *, classes: int = len(CLASSES)):
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU())
        self.klass = nn.Conv2d(channels, classes + 1, 1)
        self.offset = nn.Conv2d(channels, 2, 1)

    def forward(
        self, features: Float[Tensor, "batch cam chan h w"]
    ) -> tuple[Float[Tensor, "images klass h w"], Float[Tensor, "images 2 h w"]]:
        """Logits of the classes, then of no object; offsets (right, down), in cells."""
        shared = self.shared(features.flatten(0, 1))
        return self.klass(shared), self.offset(shared)


def instance_losses(
    logits: Float[Tensor, "images klass h w"], offsets: Float[Tensor, "images 2 h w"], truth: InstanceMap
) -> Losses:
    """Losses "class" (cross entropy; cells of objects weigh as much as all others) and "center" (smooth L1 of the
    offset, mean over cells of objects).

    Raises:
        ValueError: if truth and features differ in size.
    """
    klass, instance = truth.klass.flatten(0, 1), truth.instance.flatten(0, 1)
    if klass.shape[-2:] != logits.shape[-2:]:
        raise ValueError(f"instances must have the size of image features {logits.shape[-2:]}, got {klass.shape[-2:]}")
    seen = klass >= 0
    entropy = F.cross_entropy(logits, torch.where(seen, klass, logits.shape[1] - 1).long(), reduction="none")
    error = F.smooth_l1_loss(offsets, center_offsets(instance, seen), reduction="none").mean(dim=1)
    return {
        "class": balanced_mean(entropy[:, None], seen[:, None]),
        "center": (error * seen).sum() / mean_count(seen.sum(), at_least=1),
    }


@torch.no_grad()
def center_offsets(
    instance: Int[Tensor, "images h w"], seen: Bool[Tensor, "images h w"]
) -> Float[Tensor, "images 2 h w"]:
    """From each cell of an object to the mean of all its visible cells, (right, down), in cells; elsewhere 0."""
    images, height, width = instance.shape
    down, right = torch.meshgrid(*(torch.arange(n, device=instance.device) for n in (height, width)), indexing="ij")
    cell = torch.stack([right, down], dim=-1).float().expand(images, -1, -1, -1)
    number = torch.where(seen, instance, -1).long() + 1  # 0 is background
    number = number + int(number.max() + 1) * torch.arange(images, device=instance.device)[:, None, None]
    total = cell.new_zeros(int(number.max()) + 1, 3)
    total = total.index_add(0, number.flatten(), F.pad(cell, (0, 1), value=1.0).flatten(0, 2))
    middle = (total[:, :2] / total[:, 2:].clamp(min=1))[number]
    return torch.where(seen[..., None], middle - cell, 0.0).permute(0, 3, 1, 2)
