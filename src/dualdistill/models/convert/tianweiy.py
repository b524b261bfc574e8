"""Pillar CenterPoints of the original code base (tianweiy/CenterPoint; spec centerpoint 17.2, 17.3)."""

import re

from torch import Tensor

from dualdistill.errors import UserError
from dualdistill.models.convert.account import BoxConvention, Conversion, KeyFate
from dualdistill.models.convert.pillars import FIRST, by_patterns, pillar_conversion, renamed

_NAMES = {
    r"reader\.pfn_layers\.(\d+)\.(linear|norm)\.": r"encoder.layers.\1.\2.",
    r"neck\.deblocks\.": "neck.deblocks.",
    r"bbox_head\.shared_conv\.([01])\.": r"head.shared.\1.",
    r"bbox_head\.tasks\.(\d+)\.(\w+)\.([01])\.": r"head.tasks.\1.\2.0.\3.",
    r"bbox_head\.tasks\.(\d+)\.(\w+)\.3\.": r"head.tasks.\1.\2.1.",
}
_BEFORE_NORM = re.compile(r"(head\.(?:shared|tasks\.\d+\.\w+\.0))\.0\.bias")


def our_name(key: str) -> str | None:
    """Our name of a tensor of the original code base; None for one it does not have."""
    if match := re.match(r"neck\.blocks\.(\d+)\.(\d+)\.", key):
        layer = int(match[2]) - 1  # their first entry is the padding, a layer of its own
        return f"backbone.blocks.{match[1]}.{layer}.{key[match.end() :]}"
    name = by_patterns(key, _NAMES)
    return name and re.sub(r"(head\.tasks\.\d+)\.hm\.", r"\1.heatmap.", name)


def convert_tianweiy(state: dict[str, Tensor], boxes: BoxConvention | None) -> Conversion:
    """Two point layers, hard pillars, convolutions with a bias before their norm.

    Args:
        state: Without the prefix "module.".
        boxes: Always legacy there; None or "legacy".

    Raises:
        UserError: for a key nobody knows, a gap or another shape, new boxes, or virtual points in the layout of this
            code base.
    """
    if boxes == "new":
        raise UserError("The original CenterPoint has legacy boxes only: leave out --boxes.")
    ours, account = without_biases(*renamed(state, our_name))
    if FIRST in ours and ours[FIRST].shape[1] != 10:
        raise UserError(
            f"The first point layer of this CenterPoint reads {ours[FIRST].shape[1]} columns, expected 10. (21 are "
            "virtual points in the 16 channels of its own pillar reader, which is not implemented here. The MVP "
            "checkpoints of DistillBEV and DualDistill, 22 columns, can be converted.)"
        )
    return pillar_conversion(
        family="original CenterPoint (tianweiy), hard pillars",
        ours=ours,
        account=account,
        point_channels=5,
        boxes="legacy",
        hard=True,
    )


def without_biases(ours: dict[str, Tensor], account: list[KeyFate]) -> tuple[dict[str, Tensor], list[KeyFate]]:
    """Biases before a norm folded into the mean it subtracts (spec centerpoint 17.3.2). Exact in eval."""
    folded = dict(ours)
    entries = []
    for entry in account:
        match = entry.into and _BEFORE_NORM.fullmatch(entry.into)
        if not match:
            entries.append(entry)
            continue
        mean = f"{match[1]}.1.running_mean"
        bias = folded.pop(f"{match[1]}.0.bias")
        if mean not in folded or folded[mean].shape != bias.shape:
            raise UserError(f"{entry.key} is a bias before a norm, but no norm of {len(bias)} channels follows it.")
        folded[mean] = folded[mean] - bias
        entries.append(KeyFate(entry.key, entry.shape, "folded", mean, "bias before a norm: taken from its mean"))
    return folded, entries
