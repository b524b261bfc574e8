"""CenterPoint's detection head: one heat map and ten regressed numbers per cell and task.

Source: CenterPoint (Yin et al., CVPR 2021); spec centerpoint 12, bevdepth 9.1. Teachers and students
share it.

The paper draws 36 small branches (six tasks, six outputs each). Here they are the same numbers in fewer,
wider convolutions: the hidden layers of all branches read the same map and are one convolution, and the last
layers of the six tasks are one grouped convolution for each output. `official_state_dict` shows the 36
branches by their published names.

Differs from the released code in that the heat map bias does start at -2.19: there the initialiser never reaches the
task heads (bevdepth 9.1), and the heat map loss starts far higher.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dualdistill.models.layers.second import convolution_block
from dualdistill.structures import CLASSES, TASKS, HeadOutput

BRANCHES = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
"""Regression branches of a task by their published names, and how many codes each predicts; in code order."""


@dataclass(frozen=True, kw_only=True)
class CenterHeadConfig:
    """A CenterPoint head: its size, its targets, its loss weights and how it is decoded.

    The defaults are the CenterPoint teacher's; camera students of the DualDistill family differ in
    `velocity_weight` (1.0) and `nms` ("scale").
    """

    shared_channels: int = 64
    """Of the convolution that all branches read."""
    head_channels: int = 64
    """Hidden width of each of the 36 branches."""
    heatmap_bias: float = -2.19
    """Initial bias of the heat map logits: every cell starts at a probability of 0.1007."""

    gaussian_overlap: float = 0.1
    """Target radius: how much a box displaced by it must still overlap (spec centerpoint 13)."""
    min_radius: int = 2
    """Smallest target radius, cells."""
    max_objects: int = 500
    """Of a task and sample; later boxes are left out."""

    heatmap_weight: float = 1.0
    box_weight: float = 0.25
    velocity_weight: float = 0.2
    """Code weight of the velocity, times `box_weight`."""

    score_threshold: float = 0.1
    max_candidates: int = 500
    """Cells per class, then again per task, that decoding looks at."""
    center_range: tuple[float, float, float, float, float, float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    """x, y, z lower, then upper bounds of a detected centre, metres, inclusive."""
    nms: Literal["rotated", "circle", "scale"] = "rotated"
    """Among the boxes of a task. "rotated": by overlap of the footprints. "circle": by distance of the
    centres. "scale": by overlap of footprints scaled per class, barriers by distance (spec bevdepth 9.5)."""
    iou_threshold: float = 0.2
    """Of "rotated": more overlap suppresses."""
    circle_squared_radii: tuple[float, ...] = (4.0, 12.0, 10.0, 1.0, 0.85, 0.175)
    """Per task, square metres: a squared distance up to this suppresses."""
    scale_factors: tuple[float, ...] = (1.0, 0.7, 0.7, 0.4, 0.55, 1.1, 1.0, 1.0, 4.5, 9.0)
    """Of "scale", per class: enlarges small footprints so that duplicates meet, shrinks the large. The
    barriers' is unused."""
    scale_iou_thresholds: tuple[float, ...] = (0.2, 0.2, 0.2, 0.2, 0.2, 0.5)
    """Of "scale", per task. The barriers' is unused."""
    nms_candidates: int = 1000
    """Boxes of a task that enter "rotated" and "scale"."""
    nms_survivors: int = 83
    """Boxes of a task that may leave: six tasks stay below nuScenes' limit of 500."""

    def __post_init__(self) -> None:
        widths, limits = ("shared_channels", "head_channels"), ("max_objects", "max_candidates")
        for name in (*widths, *limits, "nms_candidates", "nms_survivors"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("gaussian_overlap", "score_threshold", "iou_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.min_radius < 0:
            raise ValueError(f"min_radius must not be negative, got {self.min_radius}")
        if any(low >= high for low, high in zip(self.center_range[:3], self.center_range[3:], strict=True)):
            raise ValueError(
                f"center_range must be three lower, then three upper bounds: {self.center_range}"
            )
        per_task = dict.fromkeys(("circle_squared_radii", "scale_iou_thresholds"), len(TASKS))
        for name, count in (per_task | {"scale_factors": len(CLASSES)}).items():
            if len(getattr(self, name)) != count:
                raise ValueError(f"{name} needs {count} values, got {len(getattr(self, name))}")

    @property
    def weights(self) -> dict[str, float]:
        """Of the losses that `center_losses` names."""
        box = dict.fromkeys(("box/xy", "box/z", "box/size", "box/yaw"), self.box_weight)
        return {"heatmap": self.heatmap_weight, **box, "box/velocity": self.box_weight * self.velocity_weight}

    def build(self, *, in_channels: int) -> "CenterHead":
        return CenterHead(self, in_channels)


class CenterHead(nn.Module):
    """What is where, from a BEV map, for all six tasks.

    Channels of the hidden layer: branch (in the order of `BRANCHES`, heat map last), task, hidden channel.
    """

    def __init__(self, config: CenterHeadConfig, in_channels: int):
        super().__init__()
        tasks, width = len(TASKS), config.head_channels
        self.config = config
        self.shared = convolution_block(in_channels, config.shared_channels, eps=1e-5, momentum=0.1)
        hidden = (len(BRANCHES) + 1) * tasks * width
        self.hidden = convolution_block(config.shared_channels, hidden, eps=1e-5, momentum=0.1)
        self.regression = nn.ModuleDict(
            {
                name: nn.Conv2d(tasks * width, tasks * codes, kernel_size=3, padding=1, groups=tasks)
                for name, codes in BRANCHES.items()
            }
        )
        self.heatmap = nn.ModuleList(
            nn.Conv2d(width, len(names), kernel_size=3, padding=1) for names in TASKS
        )
        self._initialise()

    def forward(self, neck: Float[Tensor, "batch chan y x"]) -> HeadOutput:
        tasks = len(TASKS)
        *regressing, classifying = self.hidden(self.shared(neck)).chunk(len(BRANCHES) + 1, dim=1)
        codes = [
            last(hidden).unflatten(1, (tasks, -1))  # batch task code y x
            for last, hidden in zip(self.regression.values(), regressing, strict=True)
        ]
        maps = [
            last(hidden) for last, hidden in zip(self.heatmap, classifying.chunk(tasks, dim=1), strict=True)
        ]
        return HeadOutput(heatmap=torch.cat(maps, dim=1), regression=torch.cat(codes, dim=2))

    @torch.no_grad()
    def _initialise(self) -> None:
        # Branch by branch: the fan of a fused convolution is 36 times that of the branches it stands for.
        # The last layers keep PyTorch's default: scaled to their few outputs, as Kaiming's fan-out has it, they would
        # start with logits in the tens.
        for name, tensor in _official_views(self):
            if name.endswith("conv.weight"):
                nn.init.kaiming_normal_(tensor, mode="fan_out", nonlinearity="relu")
            elif name.endswith("1.bias"):
                tensor.fill_(self.config.heatmap_bias if ".heatmap." in name else 0.0)


def official_state_dict(head: CenterHead) -> dict[str, Tensor]:
    """The head's parameters and statistics by the names of mmdetection3d (spec centerpoint 17.1), without its
    prefix.

    The tensors are views: no copies are made.
    """
    return dict(_official_views(head))


@torch.no_grad()
def load_official_state_dict(head: CenterHead, state: dict[str, Tensor]) -> None:
    """Fill the head from tensors named as in `official_state_dict`.

    Raises:
        ValueError: if a name is missing or left over, or a shape differs; `num_batches_tracked` may be
        missing.
    """
    own = dict(_official_views(head))
    missing = {name for name in own.keys() - state.keys() if not name.endswith("num_batches_tracked")}
    unknown = state.keys() - own.keys()
    if missing or unknown:
        raise ValueError(
            f"not the state of this head: missing {sorted(missing)}, not known {sorted(unknown)}"
        )
    for name, tensor in own.items():
        if name not in state:
            continue
        if tensor.shape != state[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(state[name].shape)}, this head needs {tuple(tensor.shape)}"
            )
        tensor.copy_(state[name])


def inherit_task_heads(student: CenterHead, teacher: CenterHead) -> None:
    """Start the student's branches as copies of the teacher's; its shared convolution reads another map and
    stays.

    Raises:
        ValueError: if their widths differ.
    """
    for name in ("shared_channels", "head_channels"):
        ours, theirs = getattr(student.config, name), getattr(teacher.config, name)
        if ours != theirs:
            raise ValueError(f"task heads can be inherited only with equal {name}, got {ours} and {theirs}")
    for part in ("hidden", "regression", "heatmap"):
        student.get_submodule(part).load_state_dict(teacher.get_submodule(part).state_dict())


def _official_views(head: CenterHead) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the head, cut into the 36 branches."""
    yield from _conv_and_norm("shared_conv", head.shared, slice(None))
    width = head.config.head_channels
    for task, names in enumerate(TASKS):
        for position, branch in enumerate([*BRANCHES, "heatmap"]):
            prefix = f"task_heads.{task}.{branch}"
            start = (position * len(TASKS) + task) * width
            yield from _conv_and_norm(f"{prefix}.0", head.hidden, slice(start, start + width))
            if branch == "heatmap":
                last, rows = head.heatmap[task], slice(0, len(names))
            else:
                codes = BRANCHES[branch]
                last, rows = head.regression[branch], slice(task * codes, (task + 1) * codes)
            yield f"{prefix}.1.weight", last.get_parameter("weight").detach()[rows]
            yield f"{prefix}.1.bias", last.get_parameter("bias").detach()[rows]


def _conv_and_norm(prefix: str, block: nn.Sequential, rows: slice) -> Iterator[tuple[str, Tensor]]:
    """The convolution and batch norm of a block, by their published names, rows of them only."""
    yield f"{prefix}.conv.weight", block.get_parameter("0.weight").detach()[rows]
    for name, tensor in (*block[1].named_parameters(), *block[1].named_buffers()):
        yield f"{prefix}.bn.{name}", tensor.detach()[rows] if tensor.ndim else tensor
