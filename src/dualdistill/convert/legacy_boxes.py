"""Heads trained with legacy boxes (width before length, theta = -yaw - pi/2), changed to predict ours
(docs/methods/centerpoint.md#boxes)."""

import re

from dualdistill.convert.mapping import Renamed

_LAST = re.compile(r"head\.tasks\.\d+\.(dim|rot)\.1\.(?:weight|bias)")
"""Last convolutions whose output channels depend on the box convention, by our names."""
_REASONS = {
    "dim": "legacy to new boxes: length before width",
    "rot": "legacy to new boxes: sin yaw = -cos theta, cos yaw = -sin theta",
}


def in_new_boxes(ours: Renamed) -> Renamed:
    """A network whose head predicts legacy boxes, changed to predict ours; exact."""
    state, kinds = ours.state, {name: match[1] for name in ours.state if (match := _LAST.fullmatch(name))}
    new = {name: state[name][[1, 0, 2]] if kind == "dim" else -state[name][[1, 0]] for name, kind in kinds.items()}
    return ours.changed(new, {name: _REASONS[kind] for name, kind in kinds.items()})
