"""CenterPoints of mmdetection3d (and of its forks inside DistillBEV and DualDistill) and of the original code base
(tianweiy/CenterPoint): names, layouts, sizes, box convention (docs/methods/centerpoint.md#checkpoints,
docs/methods/centerpoint.md#conversion-rules)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dualdistill.convert.mapping import (
    BoxConvention,
    Conversion,
    KeyMapping,
    Renamed,
    by_patterns,
    count,
    head_patterns,
    in_new_boxes,
    renamed,
)
from dualdistill.errors import UserError
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.centerpoint import CenterPoint, CenterPointConfig, voxel_centerpoint

FIRST = "encoder.layers.0.linear.weight"
"""Weight of the first point layer; its columns are the description of a point."""
_PADDED = (
    "Trained with hard pillars, of at most 20 points and filled up with empty rows: the network does the same "
    "(pillar_points=20), but has no limit on the number of pillars."
)


def bev_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """Sizes of backbone, neck and head in a state, as fields of `CenterPointConfig`. Raises KeyError if one of them is
    missing."""
    stages = count(state, r"backbone\.blocks\.(\d+)\.")
    layers = [count(state, rf"backbone\.blocks\.{stage}\.(\d+)\.") for stage in range(stages)]
    return {
        "stage_channels": tuple(len(state[f"backbone.blocks.{stage}.0.weight"]) for stage in range(stages)),
        # Convolution, norm and ReLU in turn; the first convolution is the strided one.
        "stage_layers": tuple((entries + 1) // 3 - 1 for entries in layers),
        "neck_channels": len(state["neck.deblocks.0.1.weight"]),
        "head": CenterHeadConfig(
            shared_channels=len(state["head.shared.0.weight"]), head_channels=len(state["head.tasks.0.reg.0.0.weight"])
        ),
    }


def pillar_conversion(
    family: str, ours: Renamed, *, point_channels: int, boxes: BoxConvention, hard: bool
) -> Conversion:
    """The last steps, the same for each family: check against the network, new boxes. Raises UserError if there are not
    the parts of a pillar CenterPoint.

    No tensor shows range, pillar size, strides and points of a hard pillar: they are the published ones (51.2 m, 0.2 m,
    2 a stage, 20).

    Args:
        ours: Biases and columns already folded.
        hard: Whether pillars were padded with empty rows while it was trained.
    """
    state = ours.state
    with _sizes_of("pillar"):
        sizes = bev_sizes(state)
        layers = range(count(state, r"encoder\.layers\.(\d+)\."))
        published = CenterPointConfig(
            point_channels=point_channels,
            pillar_channels=tuple(len(state[f"encoder.layers.{layer}.linear.weight"]) for layer in layers),
            pillar_points=20 if hard else None,
            pillar_height=state[FIRST].shape[1] > point_channels + 5,
        )
        config = replace(published, stage_strides=(2,) * len(sizes["stage_channels"]), **sizes)
    notes = (_PADDED,) if hard else ()
    if config != published:
        notes = (*notes, "Its widths are not the published ones: range ±51.2 m and 0.2 m pillars are assumed.")
    return teacher_conversion(family, config, ours, boxes, notes)


@contextmanager
def _sizes_of(kind: str) -> Iterator[None]:
    """Context in which an error about the sizes of a CenterPoint becomes a UserError."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"This is no whole {kind} CenterPoint: nothing in the file becomes {error.args[0]}.") from None
    except ValueError as error:
        raise UserError(f"The sizes of this checkpoint make no CenterPoint: {error}.") from None


def teacher_conversion(
    family: str, config: CenterPointConfig, ours: Renamed, boxes: BoxConvention, notes: tuple[str, ...]
) -> Conversion:
    """The conversion to the network of `config`, in new boxes. Raises UserError if the tensors do not fit the
    network."""
    with torch.device("meta"):
        model = CenterPoint(config)
    ours = ours.completed(model)
    if boxes == "legacy":
        ours = in_new_boxes(ours)
    mapping = tuple(ours.mapping)
    return Conversion(family=family, config=config, state=ours.state, mapping=mapping, boxes=boxes, notes=notes)


_PREFIX = "encoder.sparse"
INPUT = f"{_PREFIX}.input.conv.weight"
"""Weight of the first sparse convolution; its last axis is the channels of a point."""
_KERNELS = ((3, 3, 3), (3, 1, 1))
_PARTS = {"conv1": "first.conv", "bn1": "first.norm", "conv2": "conv", "bn2": "norm", "0": "conv", "1": "norm"}
"""Our names of the parts of a residual block, and of a layer of convolution and norm."""
_CAPPED = (
    "Trained with at most 10 points a voxel, in order of a random shuffle, and a limit on voxels. Ours average all "
    "points and have no limit: results may differ a little from the original's."
)


def mmdet3d_name(key: str) -> str | None:
    """Our name of a tensor of mmdetection3d's sparse encoder; None for one it does not have."""
    if match := re.fullmatch(r"pts_middle_encoder\.(conv_input|conv_out)\.([01])\.(\w+)", key):
        part = "input" if match[1] == "conv_input" else "output"
        return f"{_PREFIX}.{part}.{_PARTS[match[2]]}.{match[3]}"
    layers = r"pts_middle_encoder\.encoder_layers\.encoder_layer([1-9])"
    if match := re.fullmatch(rf"{layers}\.(\d+)\.(conv1|bn1|conv2|bn2)\.(\w+)", key):
        return f"{_PREFIX}.stages.{int(match[1]) - 1}.{match[2]}.{_PARTS[match[3]]}.{match[4]}"
    if match := re.fullmatch(rf"{layers}\.\d+\.([01])\.(\w+)", key):  # the step down ends the stage before
        return f"{_PREFIX}.downs.{int(match[1]) - 1}.{_PARTS[match[2]]}.{match[3]}"
    return None


def original_name(key: str) -> str | None:
    """Our name of a tensor of the original code base's sparse encoder, by its new names or the old ones, counted
    through; None for one it does not have."""
    if match := re.match(r"backbone\.middle_conv\.(\d+)\.", key):
        number = int(match[1])
        starts = {"conv_input": 0, "conv1": 3, "conv2": 5, "conv3": 10, "conv4": 15, "extra_conv": 20}
        part, start = max(((p, s) for p, s in starts.items() if s <= number), key=lambda item: item[1])
        key = f"backbone.{part}.{number - start}.{key[match.end() :]}"
    if match := re.fullmatch(r"backbone\.(conv_input|extra_conv)\.([01])\.(\w+)", key):
        part = "input" if match[1] == "conv_input" else "output"
        return f"{_PREFIX}.{part}.{_PARTS[match[2]]}.{match[3]}"
    if match := re.fullmatch(r"backbone\.conv([1-9])\.(\d+)\.(conv1|bn1|conv2|bn2)\.(\w+)", key):
        stage = int(match[1]) - 1
        block = int(match[2]) - (3 if stage else 0)  # the step down begins the stage: convolution, norm, ReLU
        return f"{_PREFIX}.stages.{stage}.{block}.{_PARTS[match[3]]}.{match[4]}" if block >= 0 else None
    if match := re.fullmatch(r"backbone\.conv([2-9])\.([01])\.(\w+)", key):
        return f"{_PREFIX}.downs.{int(match[1]) - 2}.{_PARTS[match[2]]}.{match[3]}"
    return None


def with_kernels_first(ours: Renamed) -> Renamed:
    """Sparse kernels of spconv 1.x and mmcv, (kz, ky, kx, in, out), or of spconv 2.x, (out, kz, ky, kx, in), as ours:
    (out, kz ky kx, in). Raises UserError if the kernels have neither layout, or not all have the same."""
    kernels = {name: t for name, t in ours.state.items() if name.startswith(_PREFIX) and t.ndim == 5}
    old = {name for name, t in kernels.items() if tuple(t.shape[:3]) in _KERNELS}
    new = {name for name, t in kernels.items() if tuple(t.shape[1:4]) in _KERNELS}
    if kernels.keys() not in (old, new):
        odd = next(iter(kernels.keys() - (old & new)))
        raise UserError(
            "The sparse convolutions of this file have no layout known here: expected (kz, ky, kx, in, out) of spconv "
            f"1.x or (out, kz, ky, kx, in) of 2.x for all of them; {odd} has {tuple(kernels[odd].shape)}."
        )
    first = new == kernels.keys()
    why = "kernel of spconv 2.x: one axis" if first else "kernel of spconv 1.x: output first, one axis"
    turned = {name: t if first else t.permute(4, 0, 1, 2, 3) for name, t in kernels.items()}
    flat = {name: t.flatten(1, 3).contiguous() for name, t in turned.items()}
    return ours.changed(flat, dict.fromkeys(kernels, why))


def voxel_conversion(family: str, ours: Renamed, *, boxes: BoxConvention, size: float | None) -> Conversion:
    """The last steps, the same for each family: kernel layout, check against the network, new boxes. Raises UserError
    if the size is not known, or the parts make no voxel CenterPoint.

    Args:
        ours: Biases already folded.
        size: Side of a voxel, metres; no tensor shows it.
    """
    if size is None:
        raise UserError(
            "This file does not record the size of its voxels, and keys and shapes are the same for both published "
            "sizes. Give --voxel 0.1 (range ±51.2 m) or --voxel 0.075 (range ±54 m)."
        )
    ours = with_kernels_first(ours)
    state = ours.state
    with _sizes_of("voxel"):
        base = voxel_centerpoint(size, point_channels=state[INPUT].shape[-1])
        assert base.voxel is not None
        stages = count(state, r"encoder\.sparse\.stages\.(\d+)\.")
        voxel = replace(
            base.voxel,
            channels=tuple(len(state[f"{_PREFIX}.stages.{n}.0.conv.weight"]) for n in range(stages)),
            out_channels=len(state[f"{_PREFIX}.output.conv.weight"]),
            blocks=count(state, r"encoder\.sparse\.stages\.0\.(\d+)\."),
        )
        config = replace(base, voxel=voxel, **bev_sizes(state))
    return teacher_conversion(family, config, ours, boxes, (_CAPPED,))


_BEV = {
    r"pts_backbone\.blocks\.": "backbone.blocks.",
    r"pts_neck\.deblocks\.": "neck.deblocks.",
} | head_patterns(r"pts_bbox_head\.")
_PILLARS = _BEV | {
    r"pts_voxel_encoder\.pfn_layers\.(\d+)\.(?:linear|0)\.": r"encoder.layers.\1.linear.",
    r"pts_voxel_encoder\.pfn_layers\.(\d+)\.(?:norm|1)\.": r"encoder.layers.\1.norm.",
}
_MEAN = "encoder.layers.0.norm.running_mean"
_COLUMNS = {10: 5, 11: 5, 22: 17, 23: 17}
"""Columns of the first point layer, and channels of the points; an odd one more is the height above the middle of the
pillar (mmdetection3d since 1.0.0rc1)."""


def convert_mmdet3d_pillars(state: dict[str, Tensor], boxes: BoxConvention | None, _: float | None) -> Conversion:
    """A pillar CenterPoint, hard or dynamic, or with virtual points MVP; an `Importer`.

    An odd number of columns of the first point layer proves new boxes.
    """
    ours = renamed(state, partial(by_patterns, patterns=_PILLARS))
    if FIRST not in ours.state or _MEAN not in ours.state:
        raise UserError("This is no whole pillar CenterPoint: its first point layer (pfn_layers.0) is not there.")
    columns = ours.state[FIRST].shape[1]
    if columns not in _COLUMNS:
        raise UserError(
            f"The first point layer of this CenterPoint reads {columns} columns. Known are 10 (5 LiDAR channels and 5 "
            "offsets), 22 (17 channels with virtual points), and each with the height in the pillar, 11 and 23."
        )
    hard = any(re.match(r"pts_voxel_encoder\.pfn_layers\.\d+\.linear\.", name) for name in state)
    if columns % 2:
        if boxes == "legacy":
            raise UserError(
                "This CenterPoint reads the height in the pillar, as mmdetection3d does since 1.0.0rc1: its boxes are "
                "new, but legacy ones were asked for. Leave out --boxes."
            )
        boxes = "new"
        if not hard:  # the empty rows of hard pillars have no height: there the column stays
            ours = _without_height(ours)
    points = _COLUMNS[columns]
    model = "MVP (points of 17 channels)" if points == 17 else "CenterPoint"
    family = f"mmdetection3d {model}, {'hard' if hard else 'dynamic'} pillars"
    return pillar_conversion(family, ours, point_channels=points, boxes=_known(boxes), hard=hard)


def convert_mmdet3d_voxels(state: dict[str, Tensor], boxes: BoxConvention | None, voxel: float | None) -> Conversion:
    """A voxel CenterPoint; an `Importer`."""
    ours = renamed(state, lambda key: mmdet3d_name(key) or by_patterns(key, _BEV))
    return voxel_conversion("mmdetection3d CenterPoint, voxels", ours, boxes=_known(boxes), size=voxel)


def _known(boxes: BoxConvention | None) -> BoxConvention:
    if boxes is None:
        raise UserError(
            "This file does not record the box convention of its head, and keys and shapes are the same in both. Give "
            "--boxes legacy for mmdetection3d before 1.0 (also for the teachers of DistillBEV and DualDistill), or "
            "--boxes new for 1.0 and later."
        )
    return boxes


def _without_height(ours: Renamed) -> Renamed:
    """The last column folded away (docs/methods/centerpoint.md#conversion-rules, rule 5); exact in evaluation.

    The height above the pillar's middle is z + 1 m: its weight joins that of z, and the share of the 1 is taken from
    the mean that the norm subtracts.
    """
    height = ours.state[FIRST][:, -1]
    weight = ours.state[FIRST][:, :-1].clone()
    weight[:, 2] += height
    reasons = {FIRST: "height column joined to z", _MEAN: "less the weight of the height column"}
    return ours.changed({FIRST: weight, _MEAN: ours.state[_MEAN] - height}, reasons)


_NAMES = {
    r"reader\.pfn_layers\.(\d+)\.(linear|norm)\.": r"encoder.layers.\1.\2.",
    r"neck\.deblocks\.": "neck.deblocks.",
    r"bbox_head\.shared_conv\.([01])\.": r"head.shared.\1.",
    r"bbox_head\.tasks\.(\d+)\.(\w+)\.([01])\.": r"head.tasks.\1.\2.0.\3.",
    r"bbox_head\.tasks\.(\d+)\.(\w+)\.3\.": r"head.tasks.\1.\2.1.",
}
_BEFORE_NORM = {
    r"(head\.(?:shared|tasks\.\d+\.\w+\.0))\.0\.bias": r"\1.1.running_mean",
    r"(encoder\.sparse\.stages\..*)conv\.bias": r"\1norm.running_mean",
}
"""Biases, and the running mean of the norm after them."""


def our_name(key: str) -> str | None:
    """Our name of a tensor of the original code base; None for one it does not have."""
    if match := re.match(r"neck\.blocks\.(\d+)\.(\d+)\.", key):
        layer = int(match[2]) - 1  # their first entry is the padding, a layer of its own
        return f"backbone.blocks.{match[1]}.{layer}.{key[match.end() :]}"
    name = original_name(key) or by_patterns(key, _NAMES)
    return name and re.sub(r"(head\.tasks\.\d+)\.hm\.", r"\1.heatmap.", name)


def convert_tianweiy_pillars(state: dict[str, Tensor], boxes: BoxConvention | None, _: float | None) -> Conversion:
    """The original pillar CenterPoint: two point layers, hard pillars, convolutions with a bias before their norm.

    An `Importer`; refuses new boxes, and virtual points in the layout of this code base.
    """
    _refuse_new(boxes)
    ours = _without_biases(renamed(state, our_name))
    first = ours.state.get(FIRST)
    if first is not None and first.shape[1] != 10:
        raise UserError(
            f"The first point layer of this CenterPoint reads {first.shape[1]} columns, expected 10. (21 are "
            "virtual points in the 16 channels of its own pillar reader, which is not implemented here. The MVP "
            "checkpoints of DistillBEV and DualDistill, 22 columns, can be converted.)"
        )
    family = "original CenterPoint (tianweiy), hard pillars"
    return pillar_conversion(family, ours, point_channels=5, boxes="legacy", hard=True)


def convert_tianweiy_voxels(state: dict[str, Tensor], boxes: BoxConvention | None, voxel: float | None) -> Conversion:
    """The original voxel CenterPoint: convolutions with a bias before their norm.

    An `Importer`; refuses new boxes, and virtual points in the layout of this code base.
    """
    _refuse_new(boxes)
    ours = with_kernels_first(_without_biases(renamed(state, our_name)))
    first = ours.state.get(INPUT)
    if first is not None and first.shape[-1] != 5:
        raise UserError(
            f"The voxels of this CenterPoint have {first.shape[-1]} channels, expected 5. (21 are virtual points in "
            "the layout of its own reader, which is not implemented here.)"
        )
    return voxel_conversion("original CenterPoint (tianweiy), voxels", ours, boxes="legacy", size=voxel)


def _refuse_new(boxes: BoxConvention | None) -> None:
    if boxes == "new":
        raise UserError("The original CenterPoint has legacy boxes only: leave out --boxes.")


def _without_biases(ours: Renamed) -> Renamed:
    """Biases before a norm folded into the mean that it subtracts; exact in evaluation
    (docs/methods/centerpoint.md#conversion-rules, rule 2)."""
    folded = dict(ours.state)
    entries = []
    for entry in ours.mapping:
        mean = entry.into and by_patterns(entry.into, _BEFORE_NORM)
        if not entry.into or not mean:
            entries.append(entry)
            continue
        bias = folded.pop(entry.into)
        if mean not in folded or folded[mean].shape != bias.shape:
            raise UserError(f"{entry.key} is a bias before a norm, but no norm of {len(bias)} channels follows it.")
        folded[mean] = folded[mean] - bias
        entries.append(KeyMapping(entry.key, entry.shape, "folded", mean, "bias before a norm: taken from its mean"))
    return Renamed(folded, entries)
