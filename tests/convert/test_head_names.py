"""Names of mmdetection3d's CenterPoint head (docs/methods/centerpoint.md#checkpoints)."""

import re

from dualdistill.convert.mapping import by_patterns, head_patterns
from dualdistill.models.center_head import CenterHeadConfig
from tests.convert.foreign import official_head_state

HEAD = CenterHeadConfig(shared_channels=8, head_channels=4)


def test_every_published_name_of_the_head_becomes_another_one_of_ours():
    head = HEAD.build(in_channels=3)
    names = official_head_state(head).keys()
    assert len(names) == 294
    block = r"(conv\.weight|bn\.(weight|bias|running_mean|running_var|num_batches_tracked))"
    branch = r"task_heads\.[0-5]\.(reg|height|dim|rot|vel|heatmap)"
    known = re.compile(rf"shared_conv\.{block}|{branch}\.(0\.{block}|1\.(weight|bias))")
    assert all(known.fullmatch(name) for name in names)
    patterns = head_patterns(r"pts_bbox_head\.")
    ours = [by_patterns(f"pts_bbox_head.{name}", patterns) for name in names]
    assert ours == [f"head.{name}" for name in head.state_dict()]
    assert by_patterns("pts_bbox_head.anchor", patterns) is None
