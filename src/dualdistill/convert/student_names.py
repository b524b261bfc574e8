"""Camera students from published checkpoints: which of their tensors is which of ours
(docs/methods/bevdepth.md#checkpoints).

Two families: the official BEVDepth code, and the BEVDet code base that DistillBEV and DualDistill share.
"""

import re

import torch
from torch import Tensor

from dualdistill.geometry.frustum import frustum
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.bevdepth_config import BevDepthConfig, distill_bevdepth, official_bevdepth
from dualdistill.models.center_head import load_official_state_dict

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
    r"img_bev_encoder_neck\.conv\.3\.": "encoder.neck.merge.1.0.",
    r"img_bev_encoder_neck\.conv\.4\.": "encoder.neck.merge.1.1.",
    r"img_bev_encoder_neck\.up2\.1\.": "encoder.neck.refine.0.",
    r"img_bev_encoder_neck\.up2\.2\.": "encoder.neck.refine.1.",
    r"img_bev_encoder_neck\.up2\.4\.": "encoder.neck.output.",
    r"img_bev_encoder_neck\.up2\.5\.": "encoder.neck.final.0.",
    r"pts_bbox_head\.": "head.",
}
_OFFICIAL = {
    r"backbone\.img_backbone\.": "image.backbone.",
    r"backbone\.img_neck\.": "image.neck.",
    r"backbone\.depth_net\.reduce_conv\.": "depth_net.reduce.",
    r"backbone\.depth_net\.context_conv\.": "depth_net.context.",
    r"backbone\.depth_net\.bn\.": "depth_net.vector_norm.",
    r"backbone\.depth_net\.(depth|context)_mlp\.fc1\.": r"depth_net.\1_gate.mlp.0.",
    r"backbone\.depth_net\.(depth|context)_mlp\.fc2\.": r"depth_net.\1_gate.mlp.2.",
    r"backbone\.depth_net\.(depth|context)_se\.conv_reduce\.": r"depth_net.\1_gate.excite.0.",
    r"backbone\.depth_net\.(depth|context)_se\.conv_expand\.": r"depth_net.\1_gate.excite.2.",
    r"backbone\.depth_net\.depth_conv\.([012])\.": r"depth_net.trunk.\1.",
    r"backbone\.depth_net\.depth_conv\.3\.aspp1\.": "depth_net.pyramid.branches.0.",
    r"backbone\.depth_net\.depth_conv\.3\.aspp2\.": "depth_net.pyramid.branches.1.",
    r"backbone\.depth_net\.depth_conv\.3\.aspp3\.": "depth_net.pyramid.branches.2.",
    r"backbone\.depth_net\.depth_conv\.3\.aspp4\.": "depth_net.pyramid.branches.3.",
    r"backbone\.depth_net\.depth_conv\.3\.global_avg_pool\.1\.": "depth_net.pyramid.overview.0.",
    r"backbone\.depth_net\.depth_conv\.3\.global_avg_pool\.2\.": "depth_net.pyramid.overview.1.",
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
    r"head\.trunk\.layer1\.": "encoder.stages.0.",
    r"head\.trunk\.layer2\.": "encoder.stages.1.",
    r"head\.trunk\.layer3\.": "encoder.stages.2.",
    r"head\.neck\.": "encoder.neck.",
    r"head\.(shared_conv|task_heads)\.": r"head.\1.",
}
_INSIDE_BLOCKS = {
    r"\.bn([12])\.": r".norm\1.",
    r"\.downsample\.": ".shortcut.",
    r"\.atrous_conv\.": ".0.",
    r"(branches\.\d)\.bn\.": r"\1.1.",
}
_LEFT_OUT = re.compile(r"(channel_wise|teacher|spatial_wise)_adaptations\.")
"""Training-only parts of distillation checkpoints."""
_GEOMETRY = {
    "size": ("img_view_transformer.dx", "backbone.voxel_size"),
    "first": ("img_view_transformer.bx", "backbone.voxel_coord"),
    "count": ("img_view_transformer.nx", "backbone.voxel_num"),
    "frustum": ("img_view_transformer.frustum", "backbone.frustum"),
}


def recognise(state: dict[str, Tensor]) -> BevDepthConfig:
    """The student a published state is of, with the switches its weights were trained with.

    Args:
        state: Without the prefix "model." of the official container.

    Raises:
        ValueError: if it is of neither family.
    """
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


def our_name(name: str) -> str | None:
    """Our name of a published tensor (the head's keep theirs after "head."); None if it is not a weight."""
    for table in (_BEVDET, _OFFICIAL):
        for pattern, replacement in table.items():
            if match := re.match(pattern, name):
                ours = match.expand(replacement) + name[match.end() :]
                if not ours.startswith(("image.", "head.")):
                    for inside, renamed in _INSIDE_BLOCKS.items():
                        ours = re.sub(inside, renamed, ours)
                return ours
    return None


def load_official_student(model: BevDepth, state: dict[str, Tensor]) -> dict[str, str]:
    """Fill `model` from a published state, every key accounted for.

    Geometry is not loaded but compared with the model's own: a wrong size, range or cell shows there.

    Args:
        state: As for `recognise`.

    Returns:
        What became of each key of `state`, in words.

    Raises:
        ValueError: if a key is missing, unknown or of another shape, or the geometry differs.
    """
    geometry = {name: kind for kind, names in _GEOMETRY.items() for name in names}
    account: dict[str, str] = {}
    ours: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        if name in geometry:
            _check_geometry(model, geometry[name], tensor)
            account[name] = "compared: equal to the model's own"
        elif _LEFT_OUT.match(name):
            account[name] = "left out: part of a distiller"
        elif (target := our_name(name)) is None:
            unknown.append(name)
        else:
            if re.search(r"deblocks\.\d\.0\.weight$", target) and tensor.shape[2:] == (1, 1):
                tensor = tensor.transpose(0, 1)  # transposed 1x1 convolutions, stored (in, out), are plain ones here
            ours[target] = tensor
            account[name] = f"loaded as {target}"
    if unknown:
        raise ValueError(f"keys of no known part of a camera student: {unknown}")
    head = {name.removeprefix("head."): tensor for name, tensor in ours.items() if name.startswith("head.")}
    rest = {name: tensor for name, tensor in ours.items() if not name.startswith("head.")}
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("head.")}
    missing = {name for name in own.keys() - rest.keys() if not name.endswith("num_batches_tracked")}
    wrong = {name for name in rest.keys() & own.keys() if rest[name].shape != own[name].shape}
    left_over = rest.keys() - own.keys()
    if missing or wrong or left_over:
        raise ValueError(
            f"not the state of this student: missing {sorted(missing)}, not part of it {sorted(left_over)}, "
            f"of another shape {sorted(wrong)}"
        )
    official = "head.trunk.conv1.weight" in state
    load_official_state_dict(model.head, head if official else from_legacy_codes(head))
    with torch.no_grad():
        for name, tensor in rest.items():
            own[name].copy_(tensor)
    return account


def from_legacy_codes(head: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a head that predicts legacy boxes (width before length, theta = -yaw - pi/2), changed so
    that it predicts ours."""
    changed = dict(head)
    for name, tensor in head.items():
        if re.search(r"\.dim\.1\.(weight|bias)$", name):
            changed[name] = tensor[[1, 0, 2]]
        elif re.search(r"\.rot\.1\.(weight|bias)$", name):
            changed[name] = -tensor[[1, 0]]  # sin yaw = -cos theta, cos yaw = -sin theta
    return changed


def _check_geometry(model: BevDepth, kind: str, found: Tensor) -> None:
    """Compare a stored constant of the view transformer with the model's."""
    grid, (low, high) = model.grid, model.config.lift.z_range
    expected = {
        "size": torch.tensor([grid.cell, grid.cell, high - low]),
        "first": torch.tensor([grid.x_min + grid.cell / 2, grid.y_min + grid.cell / 2, (low + high) / 2]),
        "count": torch.tensor([grid.width, grid.height, 1]),
    }
    if kind == "frustum":
        rows, columns = found.shape[1:3]
        stride = model.config.image.stride
        own = frustum((rows * stride, columns * stride), (rows, columns), model.depths.cpu())
        found = found[..., :3]  # the official one ends in a homogeneous 1
    else:
        own = expected[kind]
    if own.shape != found.shape or not torch.allclose(own.float(), found.float(), atol=1e-3):
        raise ValueError(f"the geometry of this state is another one ({kind}): expected {own}, found {found}")
