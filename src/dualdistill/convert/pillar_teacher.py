"""Pillar CenterPoints of any code base once their tensors have our names: sizes, box convention, assembly."""

from typing import Any

import torch
from torch import Tensor

from dualdistill.convert.legacy_boxes import in_new_boxes
from dualdistill.convert.mapping import BoxConvention, Conversion, Renamed
from dualdistill.convert.names import count
from dualdistill.errors import UserError
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.centerpoint import CenterPoint, CenterPointConfig

FIRST = "encoder.layers.0.linear.weight"
"""Weight of the first point layer; its columns are the description of a point."""
_PADDED = (
    "Trained with hard pillars, of at most 20 points and filled up with empty rows: the network does the same "
    "(pillar_points=20), but has no limit on the number of pillars."
)


def pillar_config(state: dict[str, Tensor], point_channels: int, *, hard: bool) -> CenterPointConfig:
    """Widths and depths of the network of a state.

    No tensor shows range, pillar size, strides and points of a hard pillar: they are the published ones (51.2 m, 0.2 m,
    2 a stage, 20).

    Args:
        state: By our names.

    Raises:
        UserError: if there are not the parts of a pillar CenterPoint.
    """
    try:
        sizes = bev_sizes(state)
        return CenterPointConfig(
            point_channels=point_channels,
            pillar_channels=tuple(
                len(state[f"encoder.layers.{layer}.linear.weight"])
                for layer in range(count(state, r"encoder\.layers\.(\d+)\."))
            ),
            pillar_points=20 if hard else None,
            pillar_height=state[FIRST].shape[1] > point_channels + 5,
            stage_strides=(2,) * len(sizes["stage_channels"]),
            **sizes,
        )
    except KeyError as error:
        raise UserError(f"This is no whole pillar CenterPoint: nothing in the file becomes {error.args[0]}.") from None
    except ValueError as error:
        raise UserError(f"The sizes of this checkpoint make no CenterPoint: {error}.") from None


def bev_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """Sizes of backbone, neck and head in a state, as fields of `CenterPointConfig`.

    Raises:
        KeyError: if one of them is missing.
    """
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
    """The last steps, the same for each family: check against the network, new boxes.

    Args:
        ours: Biases and columns already folded.
        hard: Whether pillars were padded with empty rows while it was trained.
    """
    config = pillar_config(ours.state, point_channels, hard=hard)
    notes = (_PADDED,) if hard else ()
    published = CenterPointConfig(
        point_channels=point_channels,
        **{name: getattr(config, name) for name in ("pillar_channels", "pillar_points", "pillar_height")},
    )
    if config != published:
        notes = (*notes, "Its widths are not the published ones: range ±51.2 m and 0.2 m pillars are assumed.")
    return teacher_conversion(family, config, ours, boxes, notes)


def teacher_conversion(
    family: str, config: CenterPointConfig, ours: Renamed, boxes: BoxConvention, notes: tuple[str, ...]
) -> Conversion:
    """The conversion to the network of `config`, in new boxes.

    Raises:
        UserError: if the tensors do not fit the network.
    """
    with torch.device("meta"):
        model = CenterPoint(config)
    ours = ours.completed(model)
    if boxes == "legacy":
        ours = in_new_boxes(ours)
    mapping = tuple(ours.mapping)
    return Conversion(family=family, config=config, state=ours.state, mapping=mapping, boxes=boxes, notes=notes)
