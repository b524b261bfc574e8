"""Camera students of the official code bases; names and shapes only, on the meta device."""

import pytest
import torch

from dualdistill.convert.checkpoint_file import convert
from dualdistill.errors import UserError
from dualdistill.models.bevdepth import BevDepth, distill_bevdepth, official_bevdepth
from tests.convert.test_student_names import bevdet_state, official_state


def test_a_distilled_student_is_converted_without_its_adapters():
    with torch.device("meta"):
        state = bevdet_state(BevDepth(distill_bevdepth()))
        state["channel_wise_adaptations.0.weight"] = torch.zeros(3)
        found = convert(dict(state))
        assert found.state.keys() == BevDepth(found.config).state_dict().keys()
    assert found.config == distill_bevdepth(released=True)
    assert found.boxes == "legacy"
    assert [entry.key for entry in found.mapping] == list(state)
    fates = {entry.key: entry.fate for entry in found.mapping}
    assert [key for key, fate in fates.items() if fate == "dropped"] == ["channel_wise_adaptations.0.weight"]
    changed = [key for key, fate in fates.items() if fate == "changed"]
    assert len(changed) == 6 * 2 * 2  # sizes and yaw of six tasks, weights and biases
    assert all(".dim.1." in key or ".rot.1." in key for key in changed)
    assert any("frustum" in note for note in found.notes)


def test_the_official_student_keeps_its_boxes():
    with torch.device("meta"):
        state = official_state(BevDepth(official_bevdepth(refine=True)))
        found = convert(dict(state))
    assert found.config == official_bevdepth(refine=True, released=True)
    assert found.boxes == "new"
    changed = [entry.key for entry in found.mapping if entry.fate == "changed"]
    assert changed == ["backbone.img_neck.deblocks.2.0.weight", "head.neck.deblocks.0.0.weight"]
    assert {entry.fate for entry in found.mapping} == {"renamed", "changed"}


def test_gaps_strangers_and_contradictions_are_refused_in_words():
    with torch.device("meta"):
        state = dict(bevdet_state(BevDepth(distill_bevdepth())))
        with pytest.raises(UserError, match=r"unknown: lidar_encoder\.weight"):
            convert(state | {"lidar_encoder.weight": torch.zeros(1)})
        with pytest.raises(UserError, match=r"missing: depth_net\.depth\.bias"):
            convert({name: t for name, t in state.items() if name != "img_view_transformer.depthnet.bias"})
    with pytest.raises(UserError, match="legacy boxes, but --boxes new"):
        convert(state, "new")
    with pytest.raises(UserError, match="neither the official"):
        convert({"img_view_transformer.depth_net.weight": torch.zeros(1)})  # BEVDet 2.x
