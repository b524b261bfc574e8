"""Our names of the tensors of published camera students (docs/methods/bevdepth.md#checkpoints).

Two families: the official BEVDepth code, and the BEVDet code base that DistillBEV and DualDistill share.
"""

import re

from torch import Tensor

from dualdistill.convert.names import by_patterns, head_patterns
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
    r"img_bev_encoder_neck\.conv\.3\.": "encoder.neck.merge.1.0.",
    r"img_bev_encoder_neck\.conv\.4\.": "encoder.neck.merge.1.1.",
    r"img_bev_encoder_neck\.up2\.1\.": "encoder.neck.refine.0.",
    r"img_bev_encoder_neck\.up2\.2\.": "encoder.neck.refine.1.",
    r"img_bev_encoder_neck\.up2\.4\.": "encoder.neck.output.",
    r"img_bev_encoder_neck\.up2\.5\.": "encoder.neck.final.0.",
} | head_patterns(r"pts_bbox_head\.")
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
} | head_patterns(r"head\.")
_INSIDE_BLOCKS = {
    r"\.bn([12])\.": r".norm\1.",
    r"\.downsample\.": ".shortcut.",
    r"\.atrous_conv\.": ".0.",
    r"(branches\.\d)\.bn\.": r"\1.1.",
}


def recognise(state: dict[str, Tensor]) -> BevDepthConfig:
    """The config of a published student, with the switches its weights were trained with.

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


def our_name(key: str) -> str | None:
    """Our name of a published tensor; None if it is not a weight."""
    name = by_patterns(key, _BEVDET | _OFFICIAL)
    if name is None or name.startswith(("image.", "head.")):
        return name
    for inside, renamed in _INSIDE_BLOCKS.items():
        name = re.sub(inside, renamed, name)
    return name
