"""States of the official code bases, written out key by key (docs/methods/centerpoint.md#checkpoints)."""

import torch
from torch import Tensor

from dualdistill.convert.mapping import by_patterns, head_patterns
from dualdistill.models.center_head import CenterHead

BRANCHES = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
TASK_CLASSES = (1, 2, 2, 1, 2, 2)


class State(dict[str, Tensor]):
    """Random tensors; means and variances of a norm that has seen data."""

    def __init__(self, seed: int = 0):
        super().__init__()
        self.random = torch.Generator().manual_seed(seed)

    def weight(self, name: str, *shape: int) -> None:
        fan_in = max(1, int(torch.tensor(shape[1:]).prod()))
        self[name] = torch.randn(*shape, generator=self.random) * (2 / fan_in) ** 0.5

    def bias(self, name: str, channels: int) -> None:
        self[name] = torch.randn(channels, generator=self.random)

    def norm(self, name: str, channels: int) -> None:
        for part, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            self[f"{name}.{part}"] = torch.rand(channels, generator=self.random) + low
        self[f"{name}.num_batches_tracked"] = torch.tensor(7)


def _second(state: State, blocks: str, deblocks: str, widths: dict[str, tuple[int, ...]], shift: int) -> None:
    """Backbone and neck; `shift` is 1 where a padding layer comes first."""
    before = widths["points"][-1]
    for stage, (width, extra) in enumerate(zip(widths["stages"], (3, 5, 5), strict=True)):
        for layer in range(extra + 1):
            state.weight(f"{blocks}.{stage}.{3 * layer + shift}.weight", width, before, 3, 3)
            state.norm(f"{blocks}.{stage}.{3 * layer + 1 + shift}", width)
            before = width
    one, two, three = widths["stages"]
    (neck,) = widths["neck"]
    for level, shape in enumerate([(neck, one, 2, 2), (neck, two, 1, 1), (three, neck, 2, 2)]):
        state.weight(f"{deblocks}.{level}.0.weight", *shape)
        state.norm(f"{deblocks}.{level}.1", neck)


FULL = {"points": (64,), "stages": (64, 128, 256), "neck": (128,), "head": (64,)}
NARROW = {"points": (8,), "stages": (8, 12, 16), "neck": (8,), "head": (8,)}


def mmdet3d_pillars(
    widths: dict[str, tuple[int, ...]] | None = None, *, columns: int = 10, hard: bool = False, seed: int = 0
) -> State:
    """Section 17.1."""
    widths = widths or NARROW
    state = State(seed)
    (points,), (head,), (neck,) = widths["points"], widths["head"], widths["neck"]
    linear, norm = ("linear", "norm") if hard else ("0", "1")
    state.weight(f"pts_voxel_encoder.pfn_layers.0.{linear}.weight", points, columns)
    state.norm(f"pts_voxel_encoder.pfn_layers.0.{norm}", points)
    _second(state, "pts_backbone.blocks", "pts_neck.deblocks", widths, 0)
    _mmdet3d_head(state, 3 * neck, head)
    return state


def tianweiy_pillars(widths: dict[str, tuple[int, ...]] | None = None, *, columns: int = 10, seed: int = 0) -> State:
    """Section 17.2: two point layers (half width first), a padding layer before each stage, biases before norms."""
    widths = widths or NARROW
    state = State(seed)
    (points,), (head,), (neck,) = widths["points"], widths["head"], widths["neck"]
    for layer, (before, width) in enumerate([(columns, points // 2), (points, points)]):
        state.weight(f"reader.pfn_layers.{layer}.linear.weight", width, before)
        state.norm(f"reader.pfn_layers.{layer}.norm", width)
    _second(state, "neck.blocks", "neck.deblocks", widths, 1)
    _tianweiy_head(state, 3 * neck, head)
    return state


def _mmdet3d_head(state: State, neck: int, head: int) -> None:
    state.weight("pts_bbox_head.shared_conv.conv.weight", head, neck, 3, 3)
    state.norm("pts_bbox_head.shared_conv.bn", head)
    for task, classes in enumerate(TASK_CLASSES):
        for branch, outputs in (BRANCHES | {"heatmap": classes}).items():
            name = f"pts_bbox_head.task_heads.{task}.{branch}"
            state.weight(f"{name}.0.conv.weight", head, head, 3, 3)
            state.norm(f"{name}.0.bn", head)
            state.weight(f"{name}.1.weight", outputs, head, 3, 3)
            state.bias(f"{name}.1.bias", outputs)


def _tianweiy_head(state: State, neck: int, head: int) -> None:
    state.weight("bbox_head.shared_conv.0.weight", head, neck, 3, 3)
    state.bias("bbox_head.shared_conv.0.bias", head)
    state.norm("bbox_head.shared_conv.1", head)
    for task, classes in enumerate(TASK_CLASSES):
        for branch, outputs in (BRANCHES | {"hm": classes}).items():
            name = f"bbox_head.tasks.{task}.{branch}"
            state.weight(f"{name}.0.weight", head, head, 3, 3)
            state.bias(f"{name}.0.bias", head)
            state.norm(f"{name}.1", head)
            state.weight(f"{name}.3.weight", outputs, head, 3, 3)
            state.bias(f"{name}.3.bias", outputs)


FULL_VOXELS = {"voxels": (16, 32, 64, 128), "out": (128,), "stages": (128, 256), "neck": (256,), "head": (64,)}
NARROW_VOXELS = {"voxels": (4, 6, 8, 8), "out": (6,), "stages": (8, 12), "neck": (8,), "head": (8,)}


def _voxel_second(state: State, blocks: str, deblocks: str, widths: dict[str, tuple[int, ...]], shift: int) -> None:
    (out,), (one, two), (neck,) = widths["out"], widths["stages"], widths["neck"]
    for stage, (before, width) in enumerate([(2 * out, one), (one, two)]):
        for layer in range(6):
            name = f"{blocks}.{stage}.{3 * layer + shift}.weight"
            state.weight(name, width, before if layer == 0 else width, 3, 3)
            state.norm(f"{blocks}.{stage}.{3 * layer + 1 + shift}", width)
    for level, shape in enumerate([(neck, one, 1, 1), (two, neck, 2, 2)]):
        state.weight(f"{deblocks}.{level}.0.weight", *shape)
        state.norm(f"{deblocks}.{level}.1", neck)


def mmdet3d_voxels(widths: dict[str, tuple[int, ...]] | None = None, *, seed: int = 0) -> State:
    """Section 17.1, kernels in the layout of spconv 1.x: the step down ends a stage."""
    widths = widths or NARROW_VOXELS
    state = State(seed)
    voxels, (out,) = widths["voxels"], widths["out"]
    encoder = "pts_middle_encoder"

    def layer(name: str, *shape: int) -> None:
        state.weight(f"{name}.0.weight", *shape)
        state.norm(f"{name}.1", shape[-1])

    layer(f"{encoder}.conv_input", 3, 3, 3, 5, voxels[0])
    for stage, width in enumerate(voxels, start=1):
        name = f"{encoder}.encoder_layers.encoder_layer{stage}"
        for block in range(2):
            for part in (1, 2):
                state.weight(f"{name}.{block}.conv{part}.weight", 3, 3, 3, width, width)
                state.norm(f"{name}.{block}.bn{part}", width)
        if stage < len(voxels):
            layer(f"{name}.2", 3, 3, 3, width, voxels[stage])
    layer(f"{encoder}.conv_out", 3, 1, 1, voxels[-1], out)
    _voxel_second(state, "pts_backbone.blocks", "pts_neck.deblocks", widths, 0)
    _mmdet3d_head(state, 2 * widths["neck"][0], widths["head"][0])
    return state


def tianweiy_voxels(widths: dict[str, tuple[int, ...]] | None = None, *, channels: int = 5, seed: int = 0) -> State:
    """Section 17.2: the step down begins a stage, blocks have biases before their norms."""
    widths = widths or NARROW_VOXELS
    state = State(seed)
    voxels, (out,) = widths["voxels"], widths["out"]

    def layer(name: str, first: int, *shape: int) -> None:
        state.weight(f"{name}.{first}.weight", *shape)
        state.norm(f"{name}.{first + 1}", shape[-1])

    layer("backbone.conv_input", 0, 3, 3, 3, channels, voxels[0])
    for stage, width in enumerate(voxels, start=1):
        name, start = f"backbone.conv{stage}", 0 if stage == 1 else 3
        if stage > 1:
            layer(name, 0, 3, 3, 3, voxels[stage - 2], width)
        for block in range(start, start + 2):
            for part in (1, 2):
                state.weight(f"{name}.{block}.conv{part}.weight", 3, 3, 3, width, width)
                state.bias(f"{name}.{block}.conv{part}.bias", width)
                state.norm(f"{name}.{block}.bn{part}", width)
    layer("backbone.extra_conv", 0, 3, 1, 1, voxels[-1], out)
    _voxel_second(state, "neck.blocks", "neck.deblocks", widths, 1)
    _tianweiy_head(state, 2 * widths["neck"][0], widths["head"][0])
    return state


def official_head_state(head: CenterHead) -> dict[str, Tensor]:
    """The head's state by the names of mmdetection3d, without a prefix."""
    return {_official_name(name): tensor for name, tensor in head.state_dict().items()}


def load_official_head(head: CenterHead, state: dict[str, Tensor]) -> None:
    """Fill a head from a state named as in `official_head_state`; batch counters may be missing."""
    patterns = head_patterns("")
    ours = {str(by_patterns(name, patterns)).removeprefix("head."): tensor for name, tensor in state.items()}
    head.load_state_dict({n: t for n, t in head.state_dict().items() if n.endswith("num_batches_tracked")} | ours)


def _official_name(name: str) -> str:
    """shared.0.weight -> shared_conv.conv.weight, tasks.0.reg.0.1.bias -> task_heads.0.reg.0.bn.bias, ..."""
    *path, last = name.replace("shared.", "shared_conv.").replace("tasks.", "task_heads.").split(".")
    if len(path) != 4:  # not the last convolution of a branch, but part of a block
        path[-1] = ("conv", "bn")[int(path[-1])]
    return ".".join([*path, last])
