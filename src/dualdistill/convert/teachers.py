"""CenterPoints of mmdetection3d (and of its forks inside DistillBEV and DualDistill) and of the original code base
(tianweiy/CenterPoint): names, layouts, sizes, box convention (docs/methods/centerpoint.md#checkpoints,
docs/methods/centerpoint.md#conversion-rules)."""

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dualdistill.convert.mapping import (
    BoxConvention,
    Conversion,
    Renamed,
    agreed_boxes,
    by_patterns,
    head_patterns,
    in_new_boxes,
    renamed,
)
from dualdistill.errors import UserError
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.centerpoint import CenterPoint, CenterPointConfig, voxel_centerpoint
from dualdistill.models.checkpoints import listing

_LAYERS = r"pts_middle_encoder\.encoder_layers\.encoder_layer([1-9])\."
_MMDET3D = {
    r"pts_voxel_encoder\.pfn_layers\.(\d+)\.(?:linear|0)\.": r"encoder.layers.\1.linear.",
    r"pts_voxel_encoder\.pfn_layers\.(\d+)\.(?:norm|1)\.": r"encoder.layers.\1.norm.",
    r"pts_middle_encoder\.conv_input\.": "encoder.sparse.input.",
    r"pts_middle_encoder\.conv_out\.": "encoder.sparse.output.",
    rf"{_LAYERS}(\d+)\.(?=conv|bn)": r"encoder.sparse.stages.<\1-1>.\2.",
    rf"{_LAYERS}\d+\.": r"encoder.sparse.downs.<\1-1>.",  # the step down ends the stage before
    r"pts_backbone\.blocks\.": "backbone.blocks.",
    r"pts_neck\.deblocks\.": "neck.deblocks.",
} | head_patterns(r"pts_bbox_head\.")
_ORIGINAL = {
    r"reader\.pfn_layers\.(\d+)\.(linear|norm)\.": r"encoder.layers.\1.\2.",
    r"backbone\.conv_input\.": "encoder.sparse.input.",
    r"backbone\.extra_conv\.": "encoder.sparse.output.",
    r"backbone\.conv1\.(\d+)\.": r"encoder.sparse.stages.0.\1.",
    # The step down begins a stage: convolution, norm, ReLU.
    r"backbone\.conv([2-9])\.(?=[01]\.)": r"encoder.sparse.downs.<\1-2>.",
    r"backbone\.conv([2-9])\.([3-9])\.": r"encoder.sparse.stages.<\1-1>.<\2-3>.",
    r"neck\.blocks\.(\d+)\.(\d+)\.": r"backbone.blocks.\1.<\2-1>.",  # theirs begin with a layer for the padding
    r"neck\.deblocks\.": "neck.deblocks.",
    r"bbox_head\.shared_conv\.([01])\.": r"head.shared.\1.",
    r"bbox_head\.tasks\.(\d+)\.(\w+)\.([01])\.": r"head.tasks.\1.\2.0.\3.",
    r"bbox_head\.tasks\.(\d+)\.(\w+)\.3\.": r"head.tasks.\1.\2.1.",
}
_COUNTED_THROUGH = {
    r"backbone\.middle_conv\.([0-2])\.": r"backbone.conv_input.\1.",
    r"backbone\.middle_conv\.([34])\.": r"backbone.conv1.<\1-3>.",
    r"backbone\.middle_conv\.([5-9])\.": r"backbone.conv2.<\1-5>.",
    r"backbone\.middle_conv\.(1[0-4])\.": r"backbone.conv3.<\1-10>.",
    r"backbone\.middle_conv\.(1[5-9])\.": r"backbone.conv4.<\1-15>.",
    r"backbone\.middle_conv\.(2\d)\.": r"backbone.extra_conv.<\1-20>.",
}
"""Old names of the original sparse encoder, and the new ones."""
_INSIDE = {
    r"(head\.tasks\.\d+)\.hm\.": r"\1.heatmap.",
    r"(sparse\.stages\..*)\.(conv|bn)1\.": r"\1.first.\2.",
    r"(sparse\.stages\..*)\.(conv|bn)2\.": r"\1.\2.",
    r"(sparse\..*)\.0\.(\w+)$": r"\1.conv.\2",
    r"(sparse\..*)\.(?:1|bn)\.(\w+)$": r"\1.norm.\2",
}
_BEFORE_NORM = {
    r"(head\.(?:shared|tasks\.\d+\.\w+\.0))\.0\.bias": r"\1.1.running_mean",
    r"(encoder\.sparse\.stages\..*)conv\.bias": r"\1norm.running_mean",
}
"""Biases, and the running mean of the norm after them."""


def teacher_name(key: str) -> str | None:
    """Our name of a tensor of either code base; None for one that neither has."""
    name = by_patterns(by_patterns(key, _COUNTED_THROUGH) or key, _MMDET3D | _ORIGINAL)
    for inside, ours in _INSIDE.items():
        name = name and re.sub(inside, ours, name)
    return name


FIRST = "encoder.layers.0.linear.weight"
"""Weight of the first point layer; its columns are the description of a point."""
_MEAN = "encoder.layers.0.norm.running_mean"
_PADDED = (
    "Trained with hard pillars, of at most 20 points and filled up with empty rows: the network does the same "
    "(pillar_points=20), but has no limit on the number of pillars."
)
_CAPPED = (
    "Trained with at most 10 points a voxel, in order of a random shuffle, and a limit on voxels. Ours average all "
    "points and have no limit: results may differ a little from the original's."
)
_NO_READER = "Virtual points in the 16 channels of the original code base's own reader (21) are not implemented here."
_OTHER_WIDTHS = "Its widths are not the published ones: range ±51.2 m and 0.2 m pillars are assumed."


def convert_teacher(state: dict[str, Tensor], boxes: BoxConvention | None, voxel: float | None) -> Conversion:
    """A CenterPoint of either code base, with hard or dynamic pillars (with virtual points MVP), or with voxels.

    The original code base has legacy boxes; an odd number of columns of the first point layer proves new ones.
    """
    original = not any(key.startswith("pts_") for key in state)
    hard = original or any(re.match(r"pts_voxel_encoder\.pfn_layers\.\d+\.linear\.", key) for key in state)
    ours = renamed(state, teacher_name)
    if original:
        ours = _without_biases(ours)
    kind = "pillar" if any(name.startswith("encoder.layers.") for name in ours.state) else "voxel"
    try:
        if kind == "voxel":
            height, encoder = False, "voxels"
            ours = _with_kernels_first(ours)
            config, notes = _voxel_config(ours.state, original, voxel)
        else:
            height, encoder = ours.state[FIRST].shape[1] % 2 == 1, "hard pillars" if hard else "dynamic pillars"
            config, notes = _pillar_config(ours.state, original, hard)
            if height and not hard:  # the empty rows of hard pillars have no height: there the column stays
                ours = _without_height(ours)
        with torch.device("meta"):
            model = CenterPoint(config)
    except KeyError as error:
        raise UserError(f"This is no whole {kind} CenterPoint: nothing in the file becomes {error.args[0]}.") from None
    except ValueError as error:
        raise UserError(f"The sizes of this checkpoint make no CenterPoint: {error}.") from None
    boxes = agreed_boxes("legacy" if original else "new" if height else None, boxes)
    ours = ours.completed(model)
    if boxes == "legacy":
        ours = in_new_boxes(ours)
    name = "MVP (points of 17 channels)" if kind == "pillar" and config.point_channels == 17 else "CenterPoint"
    return Conversion(
        family=f"{f'original {name} (tianweiy)' if original else f'mmdetection3d {name}'}, {encoder}",
        config=config,
        state=ours.state,
        mapping=tuple(ours.mapping),
        boxes=boxes,
        notes=notes,
    )


def _pillar_config(state: dict[str, Tensor], original: bool, hard: bool) -> tuple[CenterPointConfig, tuple[str, ...]]:
    """The config of a state with pillars, and notes. No tensor shows range, pillar size, strides and points of a hard
    pillar: they are the published ones (51.2 m, 0.2 m, 2 a stage, 20)."""
    columns = state[FIRST].shape[1]
    channels = {10: 5} if original else {10: 5, 11: 5, 22: 17, 23: 17}
    if columns not in channels:
        known = ", ".join(map(str, channels))
        raise UserError(
            f"The first point layer of this CenterPoint reads {columns} columns. Known are {known}: 5 offsets and 5 "
            f"LiDAR channels, or 17 with virtual points; one more is the height in the pillar. {_NO_READER}"
        )
    sizes = _bev_sizes(state)
    layers = range(count(state, r"encoder\.layers\.(\d+)\."))
    published = CenterPointConfig(
        point_channels=channels[columns],
        pillar_channels=tuple(len(state[f"encoder.layers.{layer}.linear.weight"]) for layer in layers),
        pillar_points=20 if hard else None,
        pillar_height=hard and columns % 2 == 1,
    )
    config = replace(published, stage_strides=(2,) * len(sizes["stage_channels"]), **sizes)
    return config, ((_PADDED,) if hard else ()) + ((_OTHER_WIDTHS,) if config != published else ())


def _voxel_config(
    state: dict[str, Tensor], original: bool, size: float | None
) -> tuple[CenterPointConfig, tuple[str, ...]]:
    """The config of a state with voxels of `size` metres, which no tensor shows, and notes."""
    channels = state["encoder.sparse.input.conv.weight"].shape[-1]
    if original and channels != 5:
        raise UserError(f"The voxels of this CenterPoint have {channels} channels, expected 5. {_NO_READER}")
    if size is None:
        raise UserError(
            "This file does not record the size of its voxels, and keys and shapes are the same for both published "
            "sizes. Give --voxel 0.1 (range ±51.2 m) or --voxel 0.075 (range ±54 m)."
        )
    base = voxel_centerpoint(size, point_channels=channels)
    assert base.voxel is not None
    stages = range(count(state, r"encoder\.sparse\.stages\.(\d+)\."))
    voxel = replace(
        base.voxel,
        channels=tuple(len(state[f"encoder.sparse.stages.{n}.0.conv.weight"]) for n in stages),
        out_channels=len(state["encoder.sparse.output.conv.weight"]),
        blocks=count(state, r"encoder\.sparse\.stages\.0\.(\d+)\."),
    )
    return replace(base, voxel=voxel, **_bev_sizes(state)), (_CAPPED,)


def _bev_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """Sizes of backbone, neck and head in a state, as fields of `CenterPointConfig`."""
    stages = range(count(state, r"backbone\.blocks\.(\d+)\."))
    layers = [count(state, rf"backbone\.blocks\.{stage}\.(\d+)\.") for stage in stages]
    return {
        "stage_channels": tuple(len(state[f"backbone.blocks.{stage}.0.weight"]) for stage in stages),
        # Convolution, norm and ReLU in turn; the first convolution is the strided one.
        "stage_layers": tuple((entries + 1) // 3 - 1 for entries in layers),
        "neck_channels": len(state["neck.deblocks.0.1.weight"]),
        "head": CenterHeadConfig(
            shared_channels=len(state["head.shared.0.weight"]), head_channels=len(state["head.tasks.0.reg.0.0.weight"])
        ),
    }


def count(state: dict[str, Tensor], pattern: str) -> int:
    """Number of parts in a state: one more than the highest number that `pattern` finds in the names."""
    return 1 + max((int(match[1]) for name in state if (match := re.match(pattern, name))), default=-1)


def _with_kernels_first(ours: Renamed) -> Renamed:
    """Sparse kernels of spconv 1.x and mmcv, (kz, ky, kx, in, out), or of spconv 2.x, (out, kz, ky, kx, in), as ours:
    (out, kz ky kx, in)."""
    kernels = {name: t for name, t in ours.state.items() if name.startswith("encoder.sparse.") and t.ndim == 5}
    sizes = ((3, 3, 3), (3, 1, 1))
    first = all(tuple(t.shape[1:4]) in sizes for t in kernels.values())
    if not first and not all(tuple(t.shape[:3]) in sizes for t in kernels.values()):
        raise UserError(
            "The sparse convolutions of this file have no layout known here: expected (kz, ky, kx, in, out) of spconv "
            "1.x or (out, kz, ky, kx, in) of 2.x for all of them, came:"
            + listing([f"{name} {tuple(t.shape)}" for name, t in kernels.items()], most=20)
        )
    why = "kernel of spconv 2.x: one axis" if first else "kernel of spconv 1.x: output first, one axis"
    turned = {name: t if first else t.permute(4, 0, 1, 2, 3) for name, t in kernels.items()}
    flat = {name: t.flatten(1, 3).contiguous() for name, t in turned.items()}
    return ours.changed(flat, dict.fromkeys(kernels, why))


def _without_height(ours: Renamed) -> Renamed:
    """The last column folded away (docs/methods/centerpoint.md#conversion-rules, rule 5); exact in evaluation.

    The height above the pillar's middle is z + 1 m: its weight joins that of z, and the share of the 1 is taken from
    the mean that the norm subtracts.
    """
    height, weight = ours.state[FIRST][:, -1], ours.state[FIRST][:, :-1].clone()
    weight[:, 2] += height
    reasons = {FIRST: "height column joined to z", _MEAN: "less the weight of the height column"}
    return ours.changed({FIRST: weight, _MEAN: ours.state[_MEAN] - height}, reasons)


def _without_biases(ours: Renamed) -> Renamed:
    """Biases before a norm folded into the mean that it subtracts; exact in evaluation
    (docs/methods/centerpoint.md#conversion-rules, rule 2)."""
    state, mapping = dict(ours.state), []
    for entry in ours.mapping:
        mean = by_patterns(entry.into or "", _BEFORE_NORM)
        if entry.into is None or mean is None:
            mapping.append(entry)
            continue
        bias = state.pop(entry.into)
        if mean not in state or state[mean].shape != bias.shape:
            raise UserError(f"{entry.key} is a bias before a norm, but no norm of {len(bias)} channels follows it.")
        state[mean] = state[mean] - bias
        mapping.append(replace(entry, fate="folded", into=mean, why="bias before a norm: taken from its mean"))
    return Renamed(state, mapping)
