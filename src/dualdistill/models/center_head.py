"""CenterPoint's detection head: one heat map and ten regressed numbers per cell and task.

Source: CenterPoint (Yin et al., CVPR 2021); docs/methods/centerpoint.md#head. Teachers and students share it.

Its 36 branches (six tasks, six outputs each) are 36 modules, as in published checkpoints. Their hidden layers read the
same map: on a GPU they are computed as one, to launch fewer kernels. On a CPU that takes 1.4 times as long for the full
head, as wide maps outgrow its caches.

Differs from the released code in the bias of the heat maps, -2.19: there the initialiser never reaches the task heads,
and the heat map loss starts far higher.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from dualdistill.models.layers.second import initialise_convolutions
from dualdistill.ops.blocks import conv_norm_relu
from dualdistill.settings import Count, Few, Inside, Natural, NonNegative, Positive, checked
from dualdistill.structures import TASKS, HeadOutput

REGRESSION = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
"""Regression branches of a task by their published names, and how many codes each predicts; in code order."""


@dataclass(frozen=True, kw_only=True)
@checked
class CenterHeadConfig:
    """A CenterPoint head: its size, its targets, its loss weights and how it is decoded.

    The defaults are the CenterPoint teacher's; camera students of the DualDistill family differ in
    `velocity_weight` (1.0) and `nms` ("scale").
    """

    shared_channels: Few = 64
    """Channels of the convolution before all branches."""
    head_channels: Few = 64
    """Hidden width of each of the 36 branches."""
    task_classes: tuple[Few, ...] = tuple(map(len, TASKS))
    """Classes of each task, in the order of the labels; the default is nuScenes'."""
    heatmap_bias: float = -2.19
    """Initial bias of the heat map logits: every cell starts at a probability of 0.1007."""

    gaussian_overlap: Inside = 0.1
    """Overlap that a box displaced by the target radius must still have (docs/methods/centerpoint.md#targets)."""
    min_radius: Natural = 2
    """Smallest target radius, cells."""
    max_objects: Count = 500
    """Most target boxes of a task and sample; later ones are left out."""

    heatmap_weight: NonNegative = 1.0
    box_weight: NonNegative = 0.25
    velocity_weight: NonNegative = 0.2
    """Code weight of the velocity, times `box_weight`."""

    score_threshold: Inside = 0.1
    max_candidates: Count = 500
    """Cells per class, then again per task, that decoding considers."""
    center_range: tuple[float, float, float, float, float, float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    """x, y, z lower, then upper bounds of a detected centre, metres, inclusive."""
    nms: Literal["rotated", "circle", "scale"] = "rotated"
    """Suppression among the boxes of a task. "rotated": by overlap of the footprints. "circle": by distance of the
    centres. "scale": by overlap of footprints scaled per class, barriers by distance
    (docs/methods/bevdepth.md#scale-suppression)."""
    iou_threshold: Inside = 0.2
    """IoU above which "rotated" suppresses."""
    circle_squared_radii: tuple[NonNegative, ...] = (4.0, 12.0, 10.0, 1.0, 0.85, 0.175)
    """Squared distance up to which "circle" suppresses, per task, square metres."""
    scale_factors: tuple[Positive, ...] = (1.0, 0.7, 0.7, 0.4, 0.55, 1.1, 1.0, 1.0, 4.5, 9.0)
    """Factors of length and width in "scale", per class: small footprints are enlarged so that duplicates overlap,
    large ones shrunk. The barriers' is unused."""
    scale_iou_thresholds: tuple[Inside, ...] = (0.2, 0.2, 0.2, 0.2, 0.2, 0.5)
    """IoU above which "scale" suppresses, per task. The barriers' is unused."""
    nms_candidates: Count = 1000
    """Boxes of a task that enter "rotated" and "scale"."""
    nms_survivors: Count = 83
    """Boxes of a task that may leave: six tasks stay below nuScenes' limit of 500."""

    def __post_init__(self) -> None:
        if any(low >= high for low, high in zip(self.center_range[:3], self.center_range[3:], strict=True)):
            raise ValueError(f"center_range must be three lower, then three upper bounds: {self.center_range}")
        if not self.task_classes or min(self.task_classes) < 1:
            raise ValueError(f"task_classes needs a positive number for each task, got {self.task_classes}")
        if self.nms == "scale" and self.task_classes != tuple(map(len, TASKS)):
            raise ValueError('nms "scale" suppresses barriers by distance: it needs the tasks of nuScenes')
        tasks, classes = len(self.task_classes), sum(self.task_classes)
        used = {"circle_squared_radii": tasks} if self.nms != "rotated" else {}
        if self.nms == "scale":
            used |= {"scale_iou_thresholds": tasks, "scale_factors": classes}
        for name, count in used.items():
            if len(getattr(self, name)) != count:
                raise ValueError(f"{name} needs {count} values, got {len(getattr(self, name))}")

    @property
    def task_of_class(self) -> tuple[int, ...]:
        """Task of each class."""
        return tuple(task for task, count in enumerate(self.task_classes) for _ in range(count))

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the losses of `center_losses`, by name."""
        box = dict.fromkeys(("box/xy", "box/z", "box/size", "box/yaw"), self.box_weight)
        return {"heatmap": self.heatmap_weight, **box, "box/velocity": self.box_weight * self.velocity_weight}

    def build(self, *, in_channels: int) -> "CenterHead":
        return CenterHead(self, in_channels)


class CenterHead(nn.Module):
    """Heat maps and box codes of all six tasks, from a BEV map."""

    def __init__(self, config: CenterHeadConfig, in_channels: int):
        super().__init__()
        self.config = config
        shared, hidden = config.shared_channels, config.head_channels
        self.shared = conv_norm_relu(in_channels, shared)
        self.tasks = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: nn.Sequential(
                        conv_norm_relu(shared, hidden), nn.Conv2d(hidden, outputs, kernel_size=3, padding=1)
                    )
                    for name, outputs in (REGRESSION | {"heatmap": classes}).items()
                }
            )
            for classes in config.task_classes
        )
        initialise_convolutions(self)
        for task in self.tasks:
            for branch in task.children():
                # By Kaiming's fan-out a layer of few outputs starts with logits in the tens: PyTorch's default instead.
                last = branch.get_submodule("1")
                assert isinstance(last, nn.Conv2d)
                assert last.bias is not None
                last.reset_parameters()
                nn.init.zeros_(last.bias)
            nn.init.constant_(task.get_parameter("heatmap.1.bias"), config.heatmap_bias)

    def forward(self, neck: Float[Tensor, "batch chan y x"]) -> HeadOutput:
        branches = [branch for task in self.tasks for branch in task.children()]
        blocks, shared = [branch.get_submodule("0") for branch in branches], self.shared(neck)
        hidden: Iterable[Tensor] = (block(shared) for block in blocks)
        if shared.device.type != "cpu":
            hidden = side_by_side(blocks, shared)
        maps = [branch.get_submodule("1")(x) for branch, x in zip(branches, hidden, strict=True)]
        each = len(REGRESSION) + 1  # maps of a task, its heat map last
        codes = [torch.cat(maps[first : first + each - 1], dim=1) for first in range(0, len(maps), each)]
        return HeadOutput(
            heatmap=torch.cat(maps[each - 1 :: each], dim=1),
            regression=torch.stack(codes, dim=1),  # batch task code y x
        )


def side_by_side(
    blocks: Sequence[nn.Module], shared: Float[Tensor, "batch chan y x"]
) -> tuple[Float[Tensor, "batch hidden y x"], ...]:
    """Outputs of hidden layers of equal width, by one convolution, batch norm and ReLU."""
    norms = [block.get_submodule("1") for block in blocks]
    wide = F.conv2d(shared, torch.cat([block.get_parameter("0.weight") for block in blocks]), padding=1)
    weights = {name: torch.cat([norm.get_parameter(name) for norm in norms]) for name in ("weight", "bias")}
    running = {name: [norm.get_buffer(name) for norm in norms] for name in ("running_mean", "running_var")}
    joined = {name: torch.cat(buffers) for name, buffers in running.items()}
    wide = functional_call(norms[0], weights | joined, (wide,))  # one of any kind, also synchronised over processes
    if norms[0].training:
        for name, buffers in running.items():
            torch._foreach_copy_(buffers, joined[name].chunk(len(blocks)))
    # Each part channels last, one after the other: what reads a slice of the channels would copy it, every time.
    apart = wide.permute(0, 2, 3, 1).unflatten(-1, (len(blocks), -1)).movedim(-2, 0).contiguous()
    return apart.relu_().movedim(-1, 2).unbind()
