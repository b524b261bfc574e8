"""Which family a foreign checkpoint is of, by its keys (spec centerpoint 17, bevdepth 16.3), and its importer."""

from collections import Counter
from collections.abc import Callable

from torch import Tensor

from dualdistill.errors import UserError
from dualdistill.models.convert.account import BoxConvention, Conversion
from dualdistill.models.convert.mmdet3d_centerpoint import convert_mmdet3d
from dualdistill.models.convert.students import convert_student
from dualdistill.models.convert.tianweiy import convert_tianweiy

Importer = Callable[[dict[str, Tensor], BoxConvention | None], Conversion]

_VOXELS = ("pts_middle_encoder.", "backbone.conv_input.", "backbone.middle_conv.")
_IMPORTERS: dict[str, Importer] = {
    "img_view_transformer.": convert_student,
    "backbone.depth_net.": convert_student,
    "pts_voxel_encoder.pfn_layers.": convert_mmdet3d,
    "reader.pfn_layers.": convert_tianweiy,
}
"""By the beginning of a key that only this family has; the first one found decides."""


def convert(state: dict[str, Tensor], boxes: BoxConvention | None = None) -> Conversion:
    """A foreign checkpoint as one of ours.

    Args:
        state: Without prefixes of wrappers.
        boxes: The box convention of the file, None where only its keys can tell.

    Raises:
        UserError: if the family is unknown, or its importer refuses the file.
    """
    for beginning, importer in _IMPORTERS.items():
        if any(name.startswith(beginning) for name in state):
            return importer(state, boxes)
    if any(name.startswith(_VOXELS) for name in state):
        raise UserError(
            "This is a CenterPoint with voxels (sparse convolutions). Only pillar CenterPoints can be converted."
        )
    parts = Counter(".".join(name.split(".")[:2]) for name in state)
    seen = ", ".join(f"{part} ({count})" for part, count in parts.most_common(10))
    raise UserError(
        "No known family of checkpoints has these keys. Known are pillar CenterPoints of mmdetection3d and of the "
        "original code, MVP of DistillBEV and DualDistill, their BEVDepth students, and the official BEVDepth. Found "
        f"parts: {seen}."
    )
