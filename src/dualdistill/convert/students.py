"""Camera students: DistillBEV, DualDistill and BEVDet's BEVDepth of July 2022, and the official BEVDepth
(docs/methods/bevdepth.md#checkpoints)."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from dualdistill.convert.mapping import (
    BoxConvention,
    Conversion,
    KeyMapping,
    agreed_boxes,
    by_patterns,
    head_patterns,
    in_new_boxes,
    renamed,
)
from dualdistill.errors import UserError
from dualdistill.geometry.cameras import frustum
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.bevdepth_config import BevDepthConfig, distill_bevdepth, official_bevdepth

_BEVDET = {
    r"img_backbone\.": "image.backbone.",
    r"img_neck\.lateral_convs\.(\d)\.conv\.": r"image.neck.laterals.\1.",
    r"img_neck\.fpn_convs\.0\.conv\.": "image.neck.output.",
    r"img_view_transformer\.featnet\.": "depth_net.context.",
    r"img_view_transformer\.se\.input_conv\.": "depth_net.reduce.",
    r"img_view_transformer\.se\.fc\.0\.": "depth_net.vector_norm.",
    r"img_view_transformer\.se\.fc\.1\.": "depth_net.gate.",
    r"img_view_transformer\.extra_depthnet\.layers\.0\.": "depth_net.trunk.",
    r"img_view_transformer\.dcn\.0\.conv_offset\.": "depth_net.mix.offset.",
    r"img_view_transformer\.dcn\.0\.": "depth_net.mix.",
    r"img_view_transformer\.dcn\.1\.": "depth_net.norm.",
    r"img_view_transformer\.depthnet\.": "depth_net.depth.",
    r"pre_process_net\.layers\.0\.": "preprocess.",
    r"img_bev_encoder_backbone\.layers\.": "encoder.stages.",
    r"img_bev_encoder_neck\.conv\.([01])\.": r"encoder.neck.merge.0.\1.",
    r"img_bev_encoder_neck\.conv\.([34])\.": r"encoder.neck.merge.1.<\1-3>.",
    r"img_bev_encoder_neck\.up2\.([12])\.": r"encoder.neck.refine.<\1-1>.",
    r"img_bev_encoder_neck\.up2\.4\.": "encoder.neck.output.",
    r"img_bev_encoder_neck\.up2\.5\.": "encoder.neck.final.0.",
} | head_patterns(r"pts_bbox_head\.")
_OFFICIAL = {
    r"backbone\.img_backbone\.": "image.backbone.",
    r"backbone\.img_neck\.": "image.neck.",
    r"backbone\.depth_net\.(reduce|context)_conv\.": r"depth_net.\1.",
    r"backbone\.depth_net\.bn\.": "depth_net.vector_norm.",
    r"backbone\.depth_net\.(depth|context)_mlp\.fc1\.": r"depth_net.\1_gate.mlp.0.",
    r"backbone\.depth_net\.(depth|context)_mlp\.fc2\.": r"depth_net.\1_gate.mlp.2.",
    r"backbone\.depth_net\.(depth|context)_se\.conv_reduce\.": r"depth_net.\1_gate.excite.0.",
    r"backbone\.depth_net\.(depth|context)_se\.conv_expand\.": r"depth_net.\1_gate.excite.2.",
    r"backbone\.depth_net\.depth_conv\.([012])\.": r"depth_net.trunk.\1.",
    r"backbone\.depth_net\.depth_conv\.3\.aspp([1-4])\.": r"depth_net.pyramid.branches.<\1-1>.",
    r"backbone\.depth_net\.depth_conv\.3\.global_avg_pool\.([12])\.": r"depth_net.pyramid.overview.<\1-1>.",
    r"backbone\.depth_net\.depth_conv\.3\.conv1\.": "depth_net.pyramid.merge.0.",
    r"backbone\.depth_net\.depth_conv\.3\.bn1\.": "depth_net.pyramid.merge.1.",
    r"backbone\.depth_net\.depth_conv\.4\.conv_offset\.": "depth_net.mix.offset.",
    r"backbone\.depth_net\.depth_conv\.4\.": "depth_net.mix.",
    r"backbone\.depth_net\.depth_conv\.5\.": "depth_net.depth.",
    r"backbone\.depth_aggregation_net\.reduce_conv\.": "refinement.reduce.",
    r"backbone\.depth_aggregation_net\.conv\.": "refinement.body.",
    r"backbone\.depth_aggregation_net\.out_conv\.0\.": "refinement.output.",
    r"head\.trunk\.conv1\.": "encoder.stem.0.",
    r"head\.trunk\.bn1\.": "encoder.stem.1.",
    r"head\.trunk\.layer([123])\.": r"encoder.stages.<\1-1>.",
    r"head\.neck\.": "encoder.neck.",
} | head_patterns(r"head\.")
_INSIDE_BLOCKS = {
    r"\.bn([12])\.": r".norm\1.",
    r"\.downsample\.": ".shortcut.",
    r"\.atrous_conv\.": ".0.",
    r"(branches\.\d)\.bn\.": r"\1.1.",
}


def recognise(state: dict[str, Tensor]) -> BevDepthConfig:
    """The config of a published student, with the switches its weights were trained with. `state`: without the prefix
    "model." of the official container. Raises ValueError if it is of neither family."""
    backbone = "resnet101" if any("layer3.22." in name for name in state) else "resnet50"
    if "img_view_transformer.se.fc.1.weight" in state:
        return distill_bevdepth(
            backbone=backbone,
            frames=2 if any(name.startswith("pre_process_net.") for name in state) else 1,
            final_norm="img_bev_encoder_neck.up2.5.weight" in state,
            released=True,
        )
    if "head.trunk.conv1.weight" in state:
        context = len(state["backbone.depth_net.context_conv.weight"])
        return official_bevdepth(
            backbone=backbone,
            frames=2 if state["head.trunk.conv1.weight"].shape[1] == 2 * context else 1,
            refine=any(name.startswith("backbone.depth_aggregation_net.") for name in state),
            released=True,
        )
    raise ValueError("neither the official BEVDepth nor one of the BEVDet code base of July 2022")


def our_name(key: str) -> str | None:
    """Our name of a published tensor; None if it is not a weight."""
    name = by_patterns(key, _BEVDET | _OFFICIAL)
    if name is None or name.startswith(("image.", "head.")):
        return name
    for inside, ours in _INSIDE_BLOCKS.items():
        name = re.sub(inside, ours, name)
    return name


_TRAINING_ONLY = re.compile(r"(channel_wise|teacher|spatial_wise)_adaptations\.")
"""Parts of a distiller in a student's checkpoint."""
_TRANSPOSED = re.compile(r"(image|encoder)\.neck\.deblocks\.\d\.0\.weight")
"""Resizing convolutions of the necks, by our names; those of 1x1 are transposed convolutions in the official code,
stored (in, out, 1, 1)."""
_GEOMETRY = {
    "img_view_transformer.dx": "size",
    "backbone.voxel_size": "size",
    "img_view_transformer.bx": "first",
    "backbone.voxel_coord": "first",
    "img_view_transformer.nx": "count",
    "backbone.voxel_num": "count",
    "img_view_transformer.frustum": "frustum",
    "backbone.frustum": "frustum",
}
"""Stored constants of the view transformer."""
_NO_FRUSTUM = "The file holds no frustum: image size and depth range could not be compared, published ones apply."
_BLUE_FIRST = "Images are fed blue-green-red, as these weights were trained."


def convert_student(state: dict[str, Tensor], boxes: BoxConvention | None, _: float | None) -> Conversion:
    """A student of the family that its keys show, which decides on the boxes.

    Geometry is not loaded but compared with that of our network: a wrong size, range or cell shows there.
    """
    official = any(name.startswith("backbone.depth_net.") for name in state)
    boxes = agreed_boxes("new" if official else "legacy", boxes)
    try:
        config = recognise(state)
        aside = list(_not_weights(state, config))
    except (KeyError, ValueError) as error:
        raise UserError(f"This camera student cannot be converted: {error}.") from None
    left = {entry.key for entry in aside}
    ours = renamed({key: tensor for key, tensor in state.items() if key not in left}, our_name)
    transposed = {name: t for name, t in ours.state.items() if _TRANSPOSED.fullmatch(name) and t.shape[2:] == (1, 1)}
    plain = {name: t.transpose(0, 1).contiguous() for name, t in transposed.items()}
    ours = ours.changed(plain, dict.fromkeys(plain, "transposed 1x1 convolution, here a plain one"))
    with torch.device("meta"):
        model = BevDepth(config)
    ours = ours.completed(model)
    if not official:
        ours = in_new_boxes(ours)
    entries = {entry.key: entry for entry in (*aside, *ours.mapping)}
    family = "official BEVDepth" if official else "BEVDepth of DistillBEV, DualDistill or BEVDet (July 2022)"
    compared = any(_GEOMETRY.get(key) == "frustum" for key in state)
    frames = "two frames" if config.temporal.frames == 2 else "one frame"
    return Conversion(
        family=f"{family}, {config.image.backbone}, {frames}",
        config=config,
        state=ours.state,
        mapping=tuple(entries[key] for key in state),
        boxes=boxes,
        notes=(() if compared else (_NO_FRUSTUM,)) + ((_BLUE_FIRST,) if official else ()),
    )


def _not_weights(state: dict[str, Tensor], config: BevDepthConfig) -> Iterator[KeyMapping]:
    """Mappings of the keys that are no weights of the student; a ValueError for a constant unlike the network's."""
    for key, tensor in state.items():
        if key in _GEOMETRY:
            check_geometry(config, _GEOMETRY[key], tensor)
            yield KeyMapping(key, tuple(tensor.shape), "compared", None, "equal to the network's own")
        elif _TRAINING_ONLY.match(key):
            yield KeyMapping(key, tuple(tensor.shape), "dropped", None, "part of a distiller")


def check_geometry(config: BevDepthConfig, kind: str, found: Tensor) -> None:
    """Compare a stored constant of the view transformer with the network's. `kind`: a value of `_GEOMETRY`. Raises
    ValueError if they differ."""
    grid, (low, high) = config.bev.grid, config.lift.z_range
    expected = {
        "size": torch.tensor([grid.cell, grid.cell, high - low]),
        "first": torch.tensor([grid.x_min + grid.cell / 2, grid.y_min + grid.cell / 2, (low + high) / 2]),
        "count": torch.tensor([grid.width, grid.height, 1]),
    }
    if kind == "frustum":
        rows, columns = found.shape[1:3]
        stride = config.image.stride
        own = frustum((rows * stride, columns * stride), (rows, columns), config.lift.depths())
        found = found[..., :3]  # the official one ends in a homogeneous 1
    else:
        own = expected[kind]
    if own.shape != found.shape or not torch.allclose(own.float(), found.float(), atol=1e-3):
        raise ValueError(f"the geometry of this state is another one ({kind}): expected {own}, found {found}")
