"""Pillar and voxel CenterPoints of the original code base (tianweiy/CenterPoint;
docs/methods/centerpoint.md#conversion-rules)."""

import re

from torch import Tensor

from dualdistill.convert.mapping import BoxConvention, Conversion, KeyMapping, Renamed, by_patterns, renamed
from dualdistill.convert.teachers import (
    FIRST,
    INPUT,
    original_name,
    pillar_conversion,
    voxel_conversion,
    with_kernels_first,
)
from dualdistill.errors import UserError

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


def convert_tianweiy_pillars(state: dict[str, Tensor], boxes: BoxConvention | None) -> Conversion:
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

    A `VoxelImporter`; refuses new boxes, and virtual points in the layout of this code base.
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
