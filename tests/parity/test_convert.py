"""Converted checkpoints against numbers of the released code: what comes out of the converted network is what came out
of theirs.

Provenance: the .json files of golden/centerpoint and golden/crd (repository, commit, sizes).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.convert.checkpoint_file import convert
from dualdistill.convert.mapping import Conversion
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.structures import Points
from tests.convert.foreign import mmdet3d_pillars

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        found = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return {key: t.squeeze() if key.endswith("num_batches_tracked") else t for key, t in found.items()}


def network(conversion: Conversion, **known) -> CenterPoint:
    model = CenterPoint(replace(conversion.config, **known)).eval()
    model.load_state_dict(conversion.state)
    return model


def test_a_converted_dynamic_pillar_teacher_sees_what_the_released_one_saw():
    arrays = golden("centerpoint/pillar_forward")
    state = {name.removeprefix("w."): tensor for name, tensor in arrays.items() if name.startswith("w.")}
    head = mmdet3d_pillars({"points": (8,), "stages": (8, 8, 16), "neck": (6,), "head": (8,)})  # the record has none
    state |= {name: tensor for name, tensor in head.items() if name.startswith("pts_bbox_head.")}
    conversion = convert(state, "legacy")
    assert conversion.config.stage_layers == (2, 1, 2)
    model = network(conversion, reach=6.4)
    parts = [arrays["points.0"], arrays["points.1"]]
    sample = torch.repeat_interleave(torch.arange(2), torch.tensor([len(part) for part in parts]))
    with torch.no_grad():
        stages = model.backbone(model.encoder(Points(features=torch.cat(parts), sample=sample), 2))
        for index, stage in enumerate(stages):
            assert_close(stage, arrays[f"eval.backbone{index}"], **TOLERANCE)
        assert_close(model.neck(stages), arrays["eval.neck"], **TOLERANCE)


def test_a_converted_head_says_what_the_released_one_said_with_boxes_our_way():
    inputs = golden("crd/crd_inputs")
    state = mmdet3d_pillars({"points": (8,), "stages": (8, 8, 8), "neck": (4,), "head": (8,)})
    for name, tensor in golden("crd/crd_head_weights").items():
        state[name.replace("head.", "pts_bbox_head.", 1)] = tensor
    model = network(convert(dict(state), "legacy"))
    with torch.no_grad():
        said = model.head(inputs["teacher_feat"])
    assert_close(said.heatmap, inputs["teacher_heatmap_logits"], **TOLERANCE)
    recorded = {name: inputs[f"teacher_task0.{name}"] for name in ("reg", "height", "dim", "rot", "vel")}
    sin_theta, cos_theta = recorded["rot"].unbind(dim=1)
    recorded["dim"] = recorded["dim"][:, [1, 0, 2]]
    recorded["rot"] = torch.stack([-cos_theta, -sin_theta], dim=1)
    assert_close(said.regression[:, 0], torch.cat(list(recorded.values()), dim=1), **TOLERANCE)
