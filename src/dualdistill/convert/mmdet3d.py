"""CenterPoints of mmdetection3d and of its forks inside DistillBEV and DualDistill
(docs/methods/centerpoint.md#checkpoints)."""

import re
from functools import partial

from torch import Tensor

from dualdistill.convert.mapping import BoxConvention, Conversion, Renamed, by_patterns, head_patterns, renamed
from dualdistill.convert.teachers import FIRST, mmdet3d_name, pillar_conversion, voxel_conversion
from dualdistill.errors import UserError

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


def convert_mmdet3d_pillars(state: dict[str, Tensor], boxes: BoxConvention | None) -> Conversion:
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
    """A voxel CenterPoint; a `VoxelImporter`."""
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
