"""Heads trained with legacy boxes (width before length, theta = -yaw - pi/2), changed to predict ours
(docs/methods/centerpoint.md#boxes)."""

import re
from dataclasses import replace

from torch import Tensor

from dualdistill.convert.mapping import KeyMapping

_LAST = re.compile(r"head\.tasks\.\d+\.(dim|rot)\.1\.(?:weight|bias)")
"""Last convolutions whose output channels depend on the box convention, by our names."""
_REASONS = {
    "dim": "legacy to new boxes: length before width",
    "rot": "legacy to new boxes: sin yaw = -cos theta, cos yaw = -sin theta",
}


def in_new_boxes(state: dict[str, Tensor], mapping: list[KeyMapping]) -> tuple[dict[str, Tensor], list[KeyMapping]]:
    """A state by our names whose head predicts legacy boxes, changed to predict ours; exact."""
    changed = dict(state)
    for name, tensor in state.items():
        if match := _LAST.fullmatch(name):
            changed[name] = tensor[[1, 0, 2]] if match[1] == "dim" else -tensor[[1, 0]]
    return changed, [_changed(entry) for entry in mapping]


def _changed(entry: KeyMapping) -> KeyMapping:
    match = _LAST.fullmatch(entry.into or "")
    return entry if match is None else replace(entry, fate="changed", why=_REASONS[match[1]])
