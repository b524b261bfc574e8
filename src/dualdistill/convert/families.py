"""Families of foreign checkpoints, recognised by their keys, and their importers
(docs/methods/centerpoint.md#checkpoints, docs/methods/bevdepth.md#checkpoints)."""

from collections import Counter
from collections.abc import Callable

from torch import Tensor

from dualdistill.convert.mapping import BoxConvention, Conversion
from dualdistill.convert.students import convert_student
from dualdistill.convert.teachers import (
    convert_mmdet3d_pillars,
    convert_mmdet3d_voxels,
    convert_tianweiy_pillars,
    convert_tianweiy_voxels,
)
from dualdistill.errors import UserError

Importer = Callable[[dict[str, Tensor], BoxConvention | None], Conversion]
"""From a state without prefixes of wrappers, and the box convention of the file (None: unknown). Raises UserError for
unknown or missing keys, another shape or geometry, and unknown or contradicting boxes."""
VoxelImporter = Callable[[dict[str, Tensor], BoxConvention | None, float | None], Conversion]
"""The same with the side of the voxels, metres (None: unknown)."""

_VOXELS: dict[str, VoxelImporter] = {
    "pts_middle_encoder.": convert_mmdet3d_voxels,
    "backbone.conv_input.": convert_tianweiy_voxels,
    "backbone.middle_conv.": convert_tianweiy_voxels,
}
_OTHERS: dict[str, Importer] = {
    "img_view_transformer.": convert_student,
    "backbone.depth_net.": convert_student,
    "pts_voxel_encoder.pfn_layers.": convert_mmdet3d_pillars,
    "reader.pfn_layers.": convert_tianweiy_pillars,
}
"""Importers by the beginning of a key that only their family has; the first one found decides."""


def convert(state: dict[str, Tensor], boxes: BoxConvention | None = None, voxel: float | None = None) -> Conversion:
    """A foreign checkpoint as one of ours. Raises UserError if the family is unknown, or its importer refuses the file.

    Args:
        state: Without prefixes of wrappers.
        boxes: The box convention of the file, None if it must follow from the keys.
        voxel: Side of the voxels, metres, None for other families or if unknown.
    """
    for beginning, importer in _OTHERS.items():
        if any(name.startswith(beginning) for name in state):
            if voxel is not None:
                raise UserError("This checkpoint has no voxels: leave out --voxel.")
            return importer(state, boxes)
    for beginning, voxel_importer in _VOXELS.items():
        if any(name.startswith(beginning) for name in state):
            return voxel_importer(state, boxes, voxel)
    parts = Counter(".".join(name.split(".")[:2]) for name in state)
    seen = ", ".join(f"{part} ({count})" for part, count in parts.most_common(10))
    raise UserError(
        "No known family of checkpoints has these keys. Known are pillar and voxel CenterPoints of mmdetection3d and "
        "of the original code, MVP of DistillBEV and DualDistill, their BEVDepth students, and the official BEVDepth. "
        "Found "
        f"parts: {seen}."
    )
