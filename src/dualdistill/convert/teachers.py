"""CenterPoints of any code base once their tensors have our names: names and layouts of sparse convolutions, sizes, box
convention, assembly (docs/methods/centerpoint.md#conversion-rules)."""

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dualdistill.convert.mapping import BoxConvention, Conversion, Renamed, count, in_new_boxes
from dualdistill.errors import UserError
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.centerpoint import CenterPoint, CenterPointConfig, voxel_centerpoint

FIRST = "encoder.layers.0.linear.weight"
"""Weight of the first point layer; its columns are the description of a point."""
_PADDED = (
    "Trained with hard pillars, of at most 20 points and filled up with empty rows: the network does the same "
    "(pillar_points=20), but has no limit on the number of pillars."
)


def pillar_config(state: dict[str, Tensor], point_channels: int, *, hard: bool) -> CenterPointConfig:
    """Widths and depths of the network of a state.

    No tensor shows range, pillar size, strides and points of a hard pillar: they are the published ones (51.2 m, 0.2 m,
    2 a stage, 20). `state`: by our names. Raises UserError if there are not the parts of a pillar CenterPoint.
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
    return teacher_conversion(family, voxel_config(ours.state, size), ours, boxes, (_CAPPED,))


def voxel_config(state: dict[str, Tensor], size: float) -> CenterPointConfig:
    """Widths and depths of the network of a state, with voxels of `size` metres. Raises UserError if there are not the
    parts of a voxel CenterPoint."""
    try:
        base = voxel_centerpoint(size, point_channels=state[INPUT].shape[-1])
        assert base.voxel is not None
        stages = count(state, r"encoder\.sparse\.stages\.(\d+)\.")
        voxel = replace(
            base.voxel,
            channels=tuple(len(state[f"{_PREFIX}.stages.{n}.0.conv.weight"]) for n in range(stages)),
            out_channels=len(state[f"{_PREFIX}.output.conv.weight"]),
            blocks=count(state, r"encoder\.sparse\.stages\.0\.(\d+)\."),
        )
        return replace(base, voxel=voxel, **bev_sizes(state))
    except KeyError as error:
        raise UserError(f"This is no whole voxel CenterPoint: nothing in the file becomes {error.args[0]}.") from None
    except ValueError as error:
        raise UserError(f"The sizes of this checkpoint make no CenterPoint: {error}.") from None
